//! Tags of days and months: which of them a table is due, and which go. Pure.
//!
//! `daily-2026-11-20` is the state at the first look on that UTC day, `monthly-2026-11` that at the first look in that
//! month. A day on which nobody looked has none: nothing proves later what its state was. Which tags the service set
//! is a property of the table, so its own are told from those of others. They go by number and not by age, so a clock
//! that is wrong costs one tag of each kind for each day that it shows.
//!
//! Its one invariant: no tag goes that the service did not set.

use chrono::{DateTime, NaiveDate};
use std::collections::BTreeSet;

/// How many tags of each kind stay; of a kind with 0 none is set, and those that are there stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRules {
    /// Tags of days.
    pub daily: usize,
    /// Tags of months.
    pub monthly: usize,
}

/// What becomes of the tags that the service set on a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagTurnover {
    /// Those that go.
    pub removed: Vec<String>,
    /// What the property says with them gone and the new ones there.
    pub property: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagPeriod {
    Day,
    Month,
}

impl TagPeriod {
    const ALL: [Self; 2] = [Self::Day, Self::Month];

    fn prefix(self) -> &'static str {
        match self {
            Self::Day => "daily-",
            Self::Month => "monthly-",
        }
    }

    fn limit(self, rules: TagRules) -> usize {
        match self {
            Self::Day => rules.daily,
            Self::Month => rules.monthly,
        }
    }

    /// The name of the one that the time is in.
    fn name_at(self, ms: i64) -> Option<String> {
        let form = match self {
            Self::Day => "%Y-%m-%d",
            Self::Month => "%Y-%m",
        };
        let time = DateTime::from_timestamp_millis(ms)?;
        Some(format!("{}{}", self.prefix(), time.format(form))).filter(|name| self.has(name))
    }

    /// Whether a tag with this name is of this kind. Names of one kind are in the order of their times.
    fn has(self, name: &str) -> bool {
        let Some(written) = name.strip_prefix(self.prefix()) else { return false };
        let day = match self {
            Self::Day => written.to_owned(),
            Self::Month => format!("{written}-01"),
        };
        // Others write the same day in other ways.
        NaiveDate::parse_from_str(&day, "%Y-%m-%d").is_ok_and(|date| date.to_string() == day)
    }
}

/// Whether a name begins as those do that the service gives: whoever reads it takes it for one of them.
#[must_use]
pub fn is_like_of_service(name: &str) -> bool {
    TagPeriod::ALL.into_iter().any(|period| name.starts_with(period.prefix()))
}

/// Whether a name is one of those that the service gives.
#[must_use]
pub fn is_of_service(name: &str) -> bool {
    TagPeriod::ALL.into_iter().any(|period| period.has(name))
}

/// The names of the tags that a table is due at `now_ms`. `property` is what it says of those that the service set,
/// `names` are all of its branches and tags.
#[must_use]
pub fn due(
    rules: TagRules,
    now_ms: i64,
    property: Option<&String>,
    names: &BTreeSet<String>,
) -> Vec<String> {
    let known = known(property);
    let is_due = |period: TagPeriod| {
        let name = period.name_at(now_ms)?;
        // Of those that a wrong clock set and somebody dropped none keeps the right ones away.
        let is_newer =
            |other: &&&str| period.has(other) && name.as_str() < **other && names.contains(**other);
        let newer = known.iter().filter(is_newer).count();
        // One that was dropped does not come again, and one that would go at once is not set.
        let is_new = !known.contains(name.as_str()) && !names.contains(&name);
        (is_new && newer < period.limit(rules)).then_some(name)
    };
    TagPeriod::ALL.into_iter().filter_map(is_due).collect()
}

/// What becomes of a table's tags that the service set, once it has the `new` ones. `tags` are all that it has. Of a
/// table that `is_held` none goes.
#[must_use]
pub fn turnover(
    rules: TagRules,
    new: &[String],
    property: Option<&String>,
    tags: &BTreeSet<String>,
    is_held: bool,
) -> TagTurnover {
    let mut own = known(property);
    own.extend(new.iter().map(String::as_str));
    let mut turnover = TagTurnover::default();
    let mut named = BTreeSet::new();
    for period in TagPeriod::ALL {
        let mut kept = 0;
        let newest_first = own.iter().rev().filter(|name| period.has(name));
        for (place, name) in newest_first.enumerate() {
            let is_there = tags.contains(*name);
            let is_new = new.iter().any(|other| other == name);
            if is_there && !is_new && !is_held && (1..=kept).contains(&period.limit(rules)) {
                turnover.removed.push((*name).to_owned());
            } else if is_there || is_new {
                kept += 1;
                named.insert(*name);
            } else if place == 0 {
                // Somebody dropped the newest one: it is known not to come again.
                named.insert(*name);
            }
        }
    }
    turnover.property = named.into_iter().collect::<Vec<_>>().join(" ");
    turnover
}

/// The names that the property has. What has another form is nothing that the service wrote.
fn known(property: Option<&String>) -> BTreeSet<&str> {
    let names = property.into_iter().flat_map(|names| names.split(' '));
    names.filter(|name| is_of_service(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 00:00:30 UTC.
    const NOW_MS: i64 = 1_795_132_830_000;
    const DAY_MS: i64 = 86_400_000;
    const RULES: TagRules = TagRules { daily: 2, monthly: 1 };

    fn set(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn check_due(rules: TagRules, now_ms: i64, property: &str, names: &str, expected: &[&str]) {
        let found = due(rules, now_ms, Some(&property.to_owned()), &set(names));
        assert_eq!(found, expected, "{now_ms} {property:?} {names:?}");
    }

    #[test]
    fn a_day_and_a_month_are_tagged_once() {
        let both = ["daily-2026-11-20", "monthly-2026-11"];
        assert_eq!(due(RULES, NOW_MS, None, &set("main")), both);
        check_due(RULES, NOW_MS, "", "main daily-2026-11-19", &both);
        check_due(RULES, NOW_MS, "daily-2026-11-20 monthly-2026-11", "", &[]);
        check_due(
            RULES,
            NOW_MS + DAY_MS,
            "daily-2026-11-20 monthly-2026-11",
            "",
            &["daily-2026-11-21"],
        );
        // Somebody else has one of the name, or dropped the service's.
        check_due(RULES, NOW_MS, "", "daily-2026-11-20", &["monthly-2026-11"]);
        check_due(TagRules { daily: 0, monthly: 0 }, NOW_MS, "", "", &[]);
    }

    #[test]
    fn a_clock_that_goes_back_sets_none_that_would_go_at_once() {
        let later = "daily-2026-11-21 daily-2026-11-22 monthly-2026-11";
        check_due(RULES, NOW_MS, later, later, &[]);
        let leap = "daily-2031-01-01 monthly-2031-01";
        check_due(RULES, NOW_MS, leap, leap, &["daily-2026-11-20"]);
        // Somebody dropped what the wrong clock set.
        check_due(RULES, NOW_MS, leap, "main", &["daily-2026-11-20", "monthly-2026-11"]);
    }

    #[test]
    fn the_newest_stay_and_nothing_goes_that_others_set() {
        let property = "daily-2026-11-18 daily-2026-11-19 monthly-2026-10";
        let tags = "daily-2026-11-17 daily-2026-11-18 daily-2026-11-19 monthly-2026-10 release-1";
        let new = ["daily-2026-11-20".to_owned(), "monthly-2026-11".to_owned()];
        let turned = |rules, new: &[String], tags: &str, is_held| {
            let found = turnover(rules, new, Some(&property.to_owned()), &set(tags), is_held);
            (found.removed.join(" "), found.property)
        };
        let owned = |removed: &str, property: &str| (removed.to_owned(), property.to_owned());
        assert_eq!(
            turned(RULES, &new, tags, false),
            owned(
                "daily-2026-11-18 monthly-2026-10",
                "daily-2026-11-19 daily-2026-11-20 monthly-2026-11"
            )
        );
        let all =
            format!("daily-2026-11-18 daily-2026-11-19 {} monthly-2026-10 {}", new[0], new[1]);
        assert_eq!(turned(RULES, &new, tags, true), owned("", &all));
        let off = TagRules { daily: 0, monthly: 0 };
        assert_eq!(turned(off, &[], tags, false), owned("", property));
        // Those that somebody dropped are forgotten, but the newest.
        assert_eq!(
            turned(RULES, &[], "daily-2026-11-18", false),
            owned("", "daily-2026-11-18 daily-2026-11-19 monthly-2026-10")
        );
        assert_eq!(
            turned(RULES, &new[..1], "daily-2026-11-18", false),
            owned("", "daily-2026-11-18 daily-2026-11-20 monthly-2026-10")
        );
    }

    #[test]
    fn a_name_of_the_service_is_a_day_or_a_month_that_there_is() {
        for name in ["daily-2026-11-20", "monthly-2026-12", "daily-2024-02-29"] {
            assert!(is_of_service(name), "{name}");
        }
        for name in [
            "daily-2026-11-31",
            "daily-2026-1-2",
            "monthly-2026-13",
            "monthly-2026",
            "daily-x",
            "x",
        ] {
            assert!(!is_of_service(name), "{name}");
        }
    }
}
