//! Every codec on arbitrary bytes, however they are cut, and on payloads of its own making. `tests/fuzz` feeds
//! it; here its corpus runs as a test, and so do all cuts of short streams.

use super::{Codec, Decoder, Delimited, Described, Fixed, FrameError, LengthPrefixed, Lines};
use crate::Input;

type Fit = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A codec, and payloads that it can send.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) codec: Box<dyn Codec>,
    /// Makes a payload of any bytes.
    pub(super) fit: Fit,
}

/// More than any header and trailer here takes.
const AROUND: usize = 16;

/// Every codec, with this as its maximum (of at least four) where it has one.
pub(super) fn cases(maximum: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, codec: Box<dyn Codec>, fit: Fit| {
        cases.push(Case { name, codec, fit });
    };
    for (name, including, codec) in [
        ("u8", "u8 including itself", LengthPrefixed::u8()),
        ("u16 be", "u16 be including itself", LengthPrefixed::u16_be()),
        ("u16 le", "u16 le including itself", LengthPrefixed::u16_le()),
        ("u32 be", "u32 be including itself", LengthPrefixed::u32_be()),
        ("u32 le", "u32 le including itself", LengthPrefixed::u32_le()),
        ("varint", "varint including itself", LengthPrefixed::varint()),
    ] {
        // What a byte has room for, less itself.
        let maximum = if name == "u8" { maximum.min(254) } else { maximum };
        let fit = move |bytes: &[u8]| bytes[..bytes.len().min(maximum)].to_vec();
        add(name, Box::new(codec.maximum(maximum)), Box::new(fit));
        add(including, Box::new(codec.maximum(maximum).including_header()), Box::new(fit));
    }
    for (name, codec) in [("lines", Lines::new()), ("crlf", Lines::crlf())] {
        let codec = codec.maximum(maximum);
        add(name, Box::new(codec), Box::new(move |bytes| without(&codec, bytes, maximum, b"\r\n")));
    }
    for (name, delimiter) in [("zero", &b"\0"[..]), ("blank line", b"\r\n\r\n"), ("aba", b"aba")] {
        let codec = Delimited::new(delimiter).maximum(maximum);
        add(name, Box::new(codec), Box::new(move |bytes| without(&codec, bytes, maximum, delimiter)));
    }
    let size = maximum.min(3);
    let padded = move |bytes: &[u8]| bytes.iter().copied().chain([0; 3]).take(size).collect();
    add("fixed", Box::new(Fixed::new(size)), Box::new(padded));
    let described = Described::new(3, length).maximum(maximum);
    add("described", Box::new(described), Box::new(move |bytes| describe(bytes, maximum)));
    cases
}

/// A kind and the length of the rest in 16 bits.
fn length(header: &[u8]) -> Result<usize, FrameError> {
    match header[0] {
        0xee => Err(FrameError::Malformed("unknown kind")),
        _ => Ok(3 + usize::from(u16::from_be_bytes([header[1], header[2]]))),
    }
}

fn describe(bytes: &[u8], maximum: usize) -> Vec<u8> {
    let body = &bytes[..bytes.len().min(maximum - 3).min(u16::MAX.into())];
    [&[body.len() as u8 & 1], &(body.len() as u16).to_be_bytes()[..], body].concat()
}

/// The bytes, or the bytes without any of those that end a frame.
fn without(codec: &dyn Codec, bytes: &[u8], maximum: usize, ends: &[u8]) -> Vec<u8> {
    let bytes = &bytes[..bytes.len().min(maximum)];
    match codec.wrap(bytes) {
        Ok(_) => bytes.to_vec(),
        Err(_) => bytes.iter().map(|byte| if ends.contains(byte) { b'.' } else { *byte }).collect(),
    }
}

/// What came of a stream: the payloads, and how it ended.
pub(super) type Outcome = (Vec<Vec<u8>>, Result<(), FrameError>);

/// Feeds pieces of a stream to a decoder as a connection does, and then its end.
pub(super) fn decode<'a>(codec: &dyn Codec, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(codec);
    let mut kept = Vec::new();
    let mut payloads = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        let result = take_all(&mut kept, &mut payloads, |input| decoder.next(input));
        if result.is_err() {
            return (payloads, result);
        }
    }
    let result = take_all(&mut kept, &mut payloads, |input| decoder.last(input));
    assert!(result.is_err() || kept.is_empty(), "{} bytes are left at the end", kept.len());
    (payloads, result)
}

fn take_all(
    kept: &mut Vec<u8>,
    payloads: &mut Vec<Vec<u8>>,
    mut next: impl for<'a> FnMut(&mut Input<'a>) -> Result<Option<&'a [u8]>, FrameError>,
) -> Result<(), FrameError> {
    let mut input = Input::new(kept);
    let result = loop {
        match next(&mut input) {
            Ok(Some(payload)) => payloads.push(payload.to_vec()),
            Ok(None) => break Ok(()),
            Err(error) => {
                assert_eq!(next(&mut input), Err(error), "an error stays");
                break Err(error);
            }
        }
    };
    let consumed = input.consumed();
    kept.drain(..consumed);
    result
}

/// `bytes` in pieces of these lengths, taken again and again.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().map(|&length| usize::from(length % 32) + 1).cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(lengths.next().unwrap_or(1).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// A stream means the same however it is cut, nothing more is kept than a frame, and what is wrapped is found.
pub fn framing(data: &[u8]) {
    const MAXIMUM: usize = 40;
    let [choice, count, rest @ ..] = data else { return };
    let (lengths, bytes) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let cases = cases(MAXIMUM);
    let Case { name, codec, fit } = &cases[usize::from(*choice) % cases.len()];
    let codec: &dyn Codec = &**codec;

    let whole = decode(codec, [bytes]);
    assert_eq!(decode(codec, bytes.chunks(1)), whole, "{name}: byte by byte");
    assert_eq!(decode(codec, pieces(bytes, lengths)), whole, "{name}: in pieces");
    let longest = whole.0.iter().map(Vec::len).max().unwrap_or(0);
    assert!(longest <= MAXIMUM, "{name}: a frame of {longest} bytes");
    if matches!(codec.find(bytes, 0), Ok(None)) {
        assert!(bytes.len() < MAXIMUM + AROUND, "{name}: more than a frame is kept");
    }

    let payloads: Vec<Vec<u8>> = pieces(bytes, lengths).into_iter().map(fit).collect();
    let mut stream = Vec::new();
    for payload in &payloads {
        codec.append(&mut stream, payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(decode(codec, [&stream[..]]), (payloads.clone(), Ok(())), "{name}");
    assert_eq!(decode(codec, stream.chunks(1)), (payloads, Ok(())), "{name}: byte by byte");
}
