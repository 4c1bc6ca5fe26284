//! Mutations of bytes: what a broken or hostile sender makes of a valid input.

use crate::pick;
use rand::{Rng, rngs::StdRng};
use std::ops::Range;

/// Most mutations of one input.
const MUTATIONS_MAX: usize = 6;
/// Longest part that is repeated or moved.
const PART_BYTES_MAX: usize = 64;
/// Most repetitions of a part.
const REPEATS_MAX: usize = 2_000;

/// Bytes that mean something to one of the formats.
const TELLING: &[u8] = b"\"\\{}[],:\n\r\t \0\x01\x1f/-+.eE0129tfnu\x7f\x80\xbf\xc3\xed\xf4\xff";

/// Texts that formats treat specially, or that overflow what is made of them.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "-0",
    "1e999",
    "-1e-999",
    "0.1e+308",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "2147483648",
    "1e15",
    "253402300800000",
    "-62135596800001",
    "99999999999999999999999999999999999999999",
    "\\u0000",
    "\\ud800",
    "\\udc00\\ud800",
    "\\ud83d\\ude00",
    "\\x",
    "\"2026-02-30T25:61:61Z\"",
    "\"0000-01-01T00:00:00Z\"",
    "\"+262142-12-31T23:59:59Z\"",
    "\"9999-12-31T23:59:60.999999999+23:59\"",
    "../../..",
    "\u{feff}",
    "\u{202e}",
    "é",
    "😀",
    "\"events\":[",
    "\"batchId\":",
    "\"type\":",
    "\"op\":\"c\",",
    "\"specversion\":\"1.0\",",
];

/// `input` changed in one to some places, at most `bytes_max` long; `others` are inputs to take
/// parts from.
pub fn mutate(random: &mut StdRng, input: &[u8], others: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=MUTATIONS_MAX) {
        once(random, &mut bytes, others);
        bytes.truncate(bytes_max);
    }
    bytes
}

fn once(random: &mut StdRng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = random.random_range(0..=bytes.len());
    let part = part(random, bytes.len());
    match random.random_range(0..12) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *pick(random, TELLING);
            }
        }
        2 => bytes.insert(at, random.random()),
        3 => bytes.insert(at, *pick(random, TELLING)),
        4 => drop(bytes.drain(part)),
        5 => bytes.truncate(at),
        6 => {
            let copy = bytes[part].to_vec();
            bytes.splice(at..at, copy);
        }
        7 => {
            let times = random.random_range(2..=REPEATS_MAX);
            let copies = bytes[part].repeat(times);
            bytes.splice(at..at, copies);
        }
        8 => {
            let token = pick(random, TOKENS).as_bytes();
            bytes.splice(at..at, token.iter().copied());
        }
        9 => {
            let number = number_at(bytes, at);
            bytes.splice(number, pick(random, TOKENS).bytes());
        }
        10 if !others.is_empty() => {
            let other = pick(random, others);
            let from = random.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let opening = [b'[', b'{', b'"', b'('][random.random_range(0..4)];
            let times = random.random_range(1..=REPEATS_MAX);
            bytes.splice(at..at, std::iter::repeat_n(opening, times));
        }
    }
}

/// A part of something of this length; empty where that is empty.
fn part(random: &mut StdRng, length: usize) -> Range<usize> {
    let start = random.random_range(0..=length);
    let most = (length - start).min(PART_BYTES_MAX);
    start..start + random.random_range(0..=most)
}

/// The next number from `at` on, or nothing.
fn number_at(bytes: &[u8], at: usize) -> Range<usize> {
    let is_digit = |index: &usize| bytes[*index].is_ascii_digit();
    let Some(start) = (at..bytes.len()).find(is_digit) else { return at..at };
    let end = (start..bytes.len()).find(|index| !is_digit(index)).unwrap_or(bytes.len());
    start..end
}
