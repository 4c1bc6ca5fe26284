//! How long events are kept: `webhook.*=30d, rpc.*=7d`.
//!
//! The setting `retention.events` and the table property `icecore.retention` have this form.

use std::{fmt, str::FromStr};

/// Most rules of a list.
const RULES_MAX: usize = 1_000;
/// Longest time of a rule: about a hundred years.
const DAYS_MAX: u32 = 36_500;

/// Rules by type, of which the first holds that a type meets. Events whose type meets none are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRules(Vec<RetentionRule>);

/// How long events of some types are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RetentionRule {
    pattern: TypePattern,
    days: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TypePattern {
    /// This type.
    Type(String),
    /// All types that begin so.
    Prefix(String),
}

/// Why a text is no list of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionProblem {
    /// A rule does not have the form.
    #[error("`{0}` is not TYPE=DAYS, such as webhook.*=30d; rules are separated by commas")]
    Form(String),
    /// A rule has no whole number of days.
    #[error("`{0}` is not a number of days from 1d to {DAYS_MAX}d")]
    Days(String),
    /// A `*` is not at the end.
    #[error("in `{0}` the `*` is not at the end, where it stands for any further text")]
    Pattern(String),
    /// There are too many.
    #[error("there are more than {RULES_MAX} rules: let one with `*` stand for several")]
    TooMany,
}

impl RetentionRules {
    /// Whether every event is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For how many days after their own events of this type are kept; none for ever.
    #[must_use]
    pub fn days(&self, event_type: &str) -> Option<u32> {
        let rule = self.0.iter().find(|rule| match &rule.pattern {
            TypePattern::Type(name) => name == event_type,
            TypePattern::Prefix(begins) => event_type.starts_with(begins.as_str()),
        });
        rule.map(|rule| rule.days)
    }
}

impl FromStr for RetentionRules {
    type Err = RetentionProblem;

    fn from_str(text: &str) -> Result<Self, RetentionProblem> {
        let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
        let rules: Vec<RetentionRule> =
            rules.take(RULES_MAX + 1).map(RetentionRule::parse).collect::<Result<_, _>>()?;
        if RULES_MAX < rules.len() {
            return Err(RetentionProblem::TooMany);
        }
        Ok(Self(rules))
    }
}

impl fmt::Display for RetentionRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, RetentionRule { pattern, days }) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match pattern {
                TypePattern::Type(name) => write!(f, "{comma}{name}={days}d")?,
                TypePattern::Prefix(begins) => write!(f, "{comma}{begins}*={days}d")?,
            }
        }
        Ok(())
    }
}

impl RetentionRule {
    fn parse(text: &str) -> Result<Self, RetentionProblem> {
        // A type may have a `=` of its own.
        let (name, time) = text
            .rsplit_once('=')
            .map(|(name, time)| (name.trim(), time.trim()))
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| RetentionProblem::Form(text.to_owned()))?;
        let days = time.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok());
        let days = days.filter(|days| (1..=DAYS_MAX).contains(days));
        let days = days.ok_or_else(|| RetentionProblem::Days(time.to_owned()))?;
        let pattern = match name.strip_suffix('*') {
            Some(begins) => TypePattern::Prefix(begins.to_owned()),
            None => TypePattern::Type(name.to_owned()),
        };
        let (TypePattern::Type(literal) | TypePattern::Prefix(literal)) = &pattern;
        if literal.contains('*') {
            return Err(RetentionProblem::Pattern(name.to_owned()));
        }
        Ok(Self { pattern, days })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> RetentionRules {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_rule_holds_that_a_type_meets() {
        let rules = rules("webhook.stripe = 3650d, webhook.*=30d,, a=b=1d, rpc.*=7d");
        for (event_type, days) in [
            ("webhook.stripe", Some(3650)),
            ("webhook.stripe.refund", Some(30)),
            ("webhook.", Some(30)),
            ("webhook", None),
            ("a=b", Some(1)),
            ("rpc.call", Some(7)),
            ("order.placed", None),
        ] {
            assert_eq!(rules.days(event_type), days, "{event_type}");
        }
        let text = rules.to_string();
        assert_eq!(text, "webhook.stripe=3650d, webhook.*=30d, a=b=1d, rpc.*=7d");
        assert_eq!(text.parse::<RetentionRules>().unwrap(), rules);
    }

    #[test]
    fn no_rules_keep_everything() {
        assert!(rules(" ").is_empty());
        assert_eq!(rules("").days("x"), None);
        assert_eq!(rules("*=5d").days("x"), Some(5));
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for (text, part) in [
            ("webhook.*", "webhook.*` is not TYPE=DAYS"),
            ("=3d", "=3d` is not TYPE=DAYS"),
            ("x=3", "`3` is not a number of days"),
            ("x=3h", "`3h` is not a number of days"),
            ("x=0d", "from 1d to 36500d"),
            ("x=36501d", "from 1d to 36500d"),
            ("a.*.b=1d", "`*` is not at the end"),
            ("**=1d", "`*` is not at the end"),
        ] {
            let problem = text.parse::<RetentionRules>().unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
        let many = vec!["x=1d"; RULES_MAX + 1].join(",");
        assert_eq!(many.parse::<RetentionRules>(), Err(RetentionProblem::TooMany));
    }
}
