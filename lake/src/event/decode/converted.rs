//! Texts of events that a body in another form than JSON was made into, so that each can be found
//! again.

/// The texts of events that were made of a body in another form, one after the other.
#[derive(Default)]
pub(super) struct ConvertedTexts {
    pub(super) text: String,
    ends: Vec<usize>,
}

impl ConvertedTexts {
    pub(super) fn of(texts: &[String]) -> Self {
        let end = |before: &mut usize, text: &String| {
            *before += text.len();
            Some(*before)
        };
        Self { text: texts.concat(), ends: texts.iter().scan(0, end).collect() }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.text[*start..*end])
    }
}
