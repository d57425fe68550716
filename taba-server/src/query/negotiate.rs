//! Content negotiation.

use axum::http::{HeaderMap, header};

use super::error::QueryError;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// One JSON object.
    Json,
    /// One JSON object a line.
    Lines,
    /// Text for people.
    Text,
}

impl Media {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// The client's preferred form; JSON by default.
    ///
    /// # Errors
    /// [`QueryError::NotAcceptable`] when it accepts none of the forms.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, QueryError> {
        let mut best: Option<(f32, Self)> = None;
        let mut asked = false;
        for range in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in range.split(',') {
                asked = true;
                let mut parts = range.split(';').map(str::trim);
                let media = match parts.next().unwrap_or("").to_ascii_lowercase().as_str() {
                    "application/json" | "application/*" | "*/*" => Self::Json,
                    "application/x-ndjson" => Self::Lines,
                    "text/plain" | "text/*" => Self::Text,
                    _ => continue,
                };
                let weight =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(1.0));
                if weight > best.map_or(0.0, |(weight, _)| weight) {
                    best = Some((weight, media));
                }
            }
        }
        match best {
            Some((_, media)) => Ok(media),
            None if asked => Err(QueryError::NotAcceptable),
            None => Ok(Self::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Option<Media> {
        Media::of(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])).ok()
    }

    #[test]
    fn the_reader_gets_what_it_likes_best() {
        assert_eq!(Media::of(&HeaderMap::new()).ok(), Some(Media::Json));
        assert_eq!(of("*/*"), Some(Media::Json));
        assert_eq!(of("text/html, text/plain;q=0.5, application/x-ndjson;q=0.9"), Some(Media::Lines));
        assert_eq!(of("text/plain, */*;q=0.1"), Some(Media::Text));
        assert_eq!(of("image/png"), None);
        assert_eq!(of("text/plain;q=0"), None);
    }
}
