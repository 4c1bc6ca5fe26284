use super::*;

#[test]
fn data_cannot_drive_the_terminal() {
    let check = |text: &str, expected: &str| assert_eq!(printable(text), expected, "{text:?}");
    check("plain ö 漢 👩‍💻", "plain ö 漢 👩‍💻");
    check("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}");
    check("a\nb\r\tc", "a\\nb\\r\\tc");
    check("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}");
    check("\u{202e}abc\u{2066}\u{feff}", "\\u{202e}abc\\u{2066}\\u{feff}");
    assert_eq!(printable_lines("a\u{1b}c\n  ^"), "a\\u{1b}c\n  ^");
}

#[test]
fn texts_are_cut_to_columns_and_not_to_characters() {
    let check = |text: &str, max: usize, expected: &str| {
        let cut = fitted(text, max);
        assert_eq!(cut, expected, "{text} in {max}");
        assert!(width(&cut) <= max, "{text} in {max}");
    };
    check("abcdef", 6, "abcdef");
    check("abcdef", 5, "abcd…");
    check("abcdef", 1, "…");
    check("漢字漢字", 8, "漢字漢字");
    check("漢字漢字", 7, "漢字漢…");
    check("漢字漢字", 6, "漢字…");
    check("👍👍👍", 4, "👍…");
    check("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…");
}

#[test]
fn wide_characters_count_twice_in_padding() {
    assert_eq!(padded("漢", 4, false), "漢  ");
    assert_eq!(padded("7", 4, true), "   7");
    assert_eq!(padded("long", 2, true), "long");
    assert_eq!(first_letters("漢字漢", 2), "漢字…");
    assert_eq!(first_letters("漢字", 2), "漢字");
}
