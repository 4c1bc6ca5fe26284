use super::*;
use axum::http::HeaderValue;
use flate2::read::GzDecoder;
use std::io::Read;

#[test]
fn a_reader_gets_the_coding_that_it_likes_best() {
    let check = |accepted: &[&str], expected: Option<AnswerCoding>| {
        let mut headers = HeaderMap::new();
        for value in accepted {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(AnswerCoding::of(&headers), expected, "{accepted:?}");
    };
    check(&[], None);
    check(&[""], None);
    check(&["identity"], None);
    check(&["br, deflate"], None);
    check(&["*"], None);
    check(&["gzip"], Some(AnswerCoding::Gzip));
    check(&["gzip, deflate, br, zstd"], Some(AnswerCoding::Zstd));
    check(&["br", "GZIP ; q=0.3"], Some(AnswerCoding::Gzip));
    check(&["gzip;q=0.8, zstd;q=0.5"], Some(AnswerCoding::Gzip));
    check(&["gzip;q=0"], None);
    check(&["gzip;q=nonsense"], None);
    check(&["identity, gzip;q=0.5"], None);
    check(&["identity;q=0.5, gzip"], Some(AnswerCoding::Gzip));
}

fn bytes(text: &str) -> AnswerPiece {
    AnswerPiece::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// The compressed body, and whether it ended with an error.
async fn body(pieces: Vec<AnswerPiece>, coding: AnswerCoding, is_told: bool) -> (Vec<u8>, bool) {
    let pieces = compressed(stream::iter(pieces).boxed(), coding, is_told);
    let (mut body, mut has_failed) = (Vec::new(), false);
    for piece in pieces.collect::<Vec<_>>().await {
        assert!(!has_failed, "nothing follows an error");
        match piece {
            AnswerPiece::Bytes(bytes) => body.extend_from_slice(&bytes),
            AnswerPiece::Failed(_) => has_failed = true,
        }
    }
    (body, has_failed)
}

fn reader(body: &[u8], coding: AnswerCoding) -> Box<dyn Read + '_> {
    match coding {
        AnswerCoding::Gzip => Box::new(GzDecoder::new(body)),
        AnswerCoding::Zstd => Box::new(zstd::Decoder::new(body).unwrap()),
    }
}

#[tokio::test]
async fn a_compressed_answer_reads_back() {
    let large = "row\n".repeat(BLOCKING_BYTES_MIN);
    for coding in [AnswerCoding::Gzip, AnswerCoding::Zstd] {
        let pieces = vec![bytes("a\n"), bytes(&large), bytes("b\n")];
        let (body, has_failed) = body(pieces, coding, true).await;
        let text = io::read_to_string(reader(&body, coding)).unwrap();
        assert!(text == format!("a\n{large}b\n") && body.len() < text.len() / 10, "{coding:?}");
        assert!(!has_failed);
    }
}

#[tokio::test]
async fn the_first_rows_can_be_read_before_the_next_ones_are_there() {
    for coding in [AnswerCoding::Gzip, AnswerCoding::Zstd] {
        let pieces = stream::iter([bytes("first\n")]).chain(stream::pending()).boxed();
        let mut pieces = compressed(pieces, coding, true);
        let Some(AnswerPiece::Bytes(piece)) = pieces.next().await else { unreachable!() };
        let mut row = [0; 6];
        reader(&piece, coding).read_exact(&mut row).unwrap();
        assert_eq!(&row, b"first\n", "{coding:?}");
    }
}

#[tokio::test]
async fn only_an_answer_that_tells_of_its_error_ends_like_a_whole_one() {
    for coding in [AnswerCoding::Gzip, AnswerCoding::Zstd] {
        for is_told in [true, false] {
            let error = AnswerPiece::Failed(SqlError::Limit("too long".to_owned()));
            let (body, has_failed) = body(vec![bytes("row\n"), error], coding, is_told).await;
            assert!(has_failed);
            let read = io::read_to_string(reader(&body, coding));
            assert_eq!(read.is_ok(), is_told, "{coding:?} {is_told}");
        }
    }
}
