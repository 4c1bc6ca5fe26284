//! The parameters behind the `?` of a path.

use crate::http::error::ApiError;
use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use icecore_schemas::error_code::ErrorCode;
use serde::de::DeserializeOwned;
use std::{error::Error, fmt::Display};

/// The parameters of a request as a handler takes them; 400 with the name of the one that does not
/// fit.
#[derive(Clone, Copy, Debug)]
pub struct QueryParameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(problem) => {
                // Only the cause says more than that there is one.
                let text = problem.source().map_or_else(|| problem.body_text(), reason);
                Err(ApiError::new(ErrorCode::InvalidRequest, text))
            }
        }
    }
}

/// How much of a list a page has; more than the most counts as the most.
///
/// # Errors
/// 400 for a page of nothing.
pub fn page_size<N: Ord + From<u8> + Display>(
    limit: Option<N>,
    default: N,
    most: N,
) -> Result<N, ApiError> {
    match limit {
        Some(limit) if limit < N::from(1) => {
            let text = format!(
                "query parameter `limit`: it must be at least 1, and more than {most} counts as {most}"
            );
            Err(ApiError::new(ErrorCode::InvalidRequest, text))
        }
        limit => Ok(limit.unwrap_or(default).min(most)),
    }
}

/// The same, where more than the most is refused: fewer than were asked for would look like all there are.
///
/// # Errors
/// 400 for a page of nothing, and for one that is too large.
pub fn exact_page_size<N: Ord + From<u8> + Display + Copy>(
    limit: Option<N>,
    default: N,
    most: N,
) -> Result<N, ApiError> {
    match limit {
        Some(limit) if limit < N::from(1) || most < limit => Err(out_of_bounds(&most)),
        limit => Ok(limit.unwrap_or(default)),
    }
}

fn out_of_bounds(most: &impl Display) -> ApiError {
    let text = format!("query parameter `limit`: it must be from 1 to {most}");
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// What does not fit. The text begins with the parameter's name where it is one's.
fn reason(cause: &(dyn Error + 'static)) -> String {
    let text = cause.to_string();
    let Some((name, reason)) = text.split_once(": ") else {
        return format!("query parameters: {text}");
    };
    match reason.split_once(", expected ") {
        Some((unknown, known)) if unknown.starts_with("unknown field") => {
            let known = known.trim_start_matches("one of ");
            format!("unknown query parameter `{name}`; known are {known}")
        }
        _ => format!("query parameter `{name}`: {}", of_number(reason)),
    }
}

/// What a number must be, where the reason is the standard library's, which says of no parameter what it takes.
fn of_number(reason: &str) -> &str {
    match reason {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "it must be a whole number in digits alone, such as 3"
        }
        "number too large to fit in target type" => "the number is too large",
        "number too small to fit in target type" => "the number is too small",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;
    use icecore_schemas::restore::DocumentParameters;

    #[test]
    fn a_parameter_that_is_no_number_is_told_what_it_must_be() {
        let digits = "it must be a whole number in digits alone, such as 3";
        for (value, expected) in [
            ("x", digits),
            ("", digits),
            ("-1", digits),
            ("1.5", digits),
            ("99999999999999999999", "the number is too large"),
        ] {
            let uri: Uri = format!("/?expected_version={value}").parse().unwrap();
            let problem = Query::<DocumentParameters>::try_from_uri(&uri).unwrap_err();
            let told = reason(problem.source().unwrap());
            assert_eq!(told, format!("query parameter `expected_version`: {expected}"), "{value}");
        }
    }

    #[test]
    fn a_page_has_at_least_one_entry_and_at_most_the_most() {
        let size = |limit: Option<usize>| page_size(limit, 100, 1000);
        assert_eq!(
            [None, Some(1), Some(1001)].map(|limit| size(limit).ok()),
            [Some(100), Some(1), Some(1000)]
        );
        let refused = format!("{:?}", size(Some(0)).unwrap_err());
        assert!(refused.contains("more than 1000 counts as 1000"), "{refused}");
        assert!(exact_page_size(Some(1001_usize), 100, 1000).is_err());
    }
}
