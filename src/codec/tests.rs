//! What holds for every codec.

use proptest::prelude::*;

use super::fuzz::{Case, cases, decode};
use super::{Codec, DEFAULT_MAXIMUM, Decoder, Delimited, FrameError, LengthPrefixed, Lines};
use crate::Input;

fn stream(codec: &dyn Codec, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    payloads.iter().for_each(|payload| codec.append(&mut bytes, payload).unwrap());
    bytes
}

/// `bytes`, cut behind byte n wherever bit n of `cuts` is set.
fn cut(bytes: &[u8], cuts: u32) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in 1..=bytes.len() {
        if end == bytes.len() || cuts >> (end - 1) & 1 == 1 {
            pieces.push(&bytes[start..end]);
            start = end;
        }
    }
    pieces
}

/// All 2^(n-1) cuts of short streams, of frames and of what is none.
#[test]
fn every_cut_of_a_short_stream_means_the_same() {
    for Case { name, codec, fit } in cases(6) {
        let frames: Vec<Vec<u8>> = [&b""[..], b"abc", b"\r", b"x"].map(&fit).into();
        let mut whole = stream(&*codec, &frames);
        whole.truncate(13);
        let mut streams = vec![whole];
        for bytes in [
            &b"abc\r\n\r\r\nd\n\r\n\r\n"[..],
            b"abcdef\r\nabcdefg\n",
            b"abababa\0\0",
            b"\x01a\x80\x01bcdefgh",
            b"\x81\x80\0",
            b"\0\0\0\x06abcdefg",
            b"\x07\0\0\0abc\0",
            b"\0\0\x01\x02\xee\xff\xff",
        ] {
            streams.push(bytes[..bytes.len().min(13)].to_vec());
        }
        for bytes in streams {
            let whole = decode(&*codec, [&bytes[..]]);
            for cuts in 0..1 << (bytes.len() - 1) {
                let pieces = cut(&bytes, cuts);
                assert_eq!(decode(&*codec, pieces), whole, "{name}: {bytes:?} cut at {cuts:b}");
            }
        }
    }
}

/// An empty payload is a frame, between others and at the end.
#[test]
fn empty_frames_are_frames() {
    for Case { name, codec, .. } in cases(10) {
        let payloads = [&b""[..], b"", b"x", b""].map(<[u8]>::to_vec);
        if codec.wrap(b"").is_err() {
            assert!(["fixed", "described"].contains(&name), "{name}");
            continue;
        }
        let bytes = stream(&*codec, &payloads);
        for pieces in [vec![&bytes[..]], bytes.chunks(1).collect()] {
            assert_eq!(decode(&*codec, pieces), (payloads.to_vec(), Ok(())), "{name}");
        }
    }
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    for maximum in [4, 5, 127, 128, 129, 254, 4096, 60_000] {
        for Case { name, codec, fit } in cases(maximum) {
            let payload = fit(&vec![b'x'; maximum]);
            let bytes = stream(&*codec, std::slice::from_ref(&payload));
            assert_eq!(decode(&*codec, [&bytes[..]]), (vec![payload.clone()], Ok(())), "{name} of {maximum}");
            let longer = [&payload[..], b"x"].concat();
            let error = codec.wrap(&longer).unwrap_err();
            let is_expected = matches!(error, FrameError::TooLarge { .. } | FrameError::WrongLength { .. });
            assert!(is_expected, "{name}: {error}");
            assert_eq!(codec.append(&mut Vec::new(), &longer), Err(error), "{name}");
        }
    }
}

#[test]
fn the_default_maximum_is_what_it_says() {
    let codecs: [&dyn Codec; 4] =
        [&LengthPrefixed::u32_be(), &LengthPrefixed::varint(), &Lines::new(), &Delimited::new(b"\0")];
    for codec in codecs {
        assert!(codec.wrap(&[b'x'; DEFAULT_MAXIMUM]).is_ok());
        let error = FrameError::TooLarge { length: DEFAULT_MAXIMUM as u64 + 1, maximum: DEFAULT_MAXIMUM };
        assert_eq!(codec.wrap(&[b'x'; DEFAULT_MAXIMUM + 1]), Err(error));
    }
}

#[test]
fn what_is_larger_than_the_receiver_allows_is_refused_with_its_size() {
    let (small, large) = (cases(20), cases(21));
    for (small, large) in small.iter().zip(&large) {
        let payload = (large.fit)(&[b'x'; 21]);
        if small.codec.wrap(&payload).is_ok() {
            assert_eq!(small.name, "fixed");
            continue;
        }
        let bytes = stream(&*large.codec, &[(large.fit)(b"fits"), payload]);
        let (payloads, end) = decode(&*small.codec, bytes.chunks(1));
        assert_eq!(payloads, [(large.fit)(b"fits")], "{}", small.name);
        assert_eq!(end, Err(FrameError::TooLarge { length: 21, maximum: 20 }), "{}", small.name);
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated() {
    for Case { name, codec, fit } in cases(20) {
        let payload = fit(b"payload");
        let bytes = stream(&*codec, &[payload.clone(), payload.clone()]);
        let frame = bytes.len() / 2;
        for kept in 1..frame {
            let (payloads, end) = decode(&*codec, [&bytes[..frame + kept]]);
            if ["lines", "crlf"].contains(&name) {
                assert_eq!((payloads.len(), end), (2, Ok(())), "{name}");
            } else {
                assert_eq!(payloads, std::slice::from_ref(&payload), "{name}");
                assert_eq!(end, Err(FrameError::Truncated { bytes: kept }), "{name}");
            }
        }
    }
}

/// A frame that came whole is where it came.
#[test]
fn a_payload_is_a_slice_of_the_input() {
    for Case { name, codec, fit } in cases(20) {
        let payload = fit(b"payload");
        let bytes = stream(&*codec, std::slice::from_ref(&payload));
        let mut input = Input::new(&bytes);
        let found = Decoder::new(&*codec).next(&mut input).unwrap().unwrap();
        assert_eq!(found, payload, "{name}");
        assert!(bytes.as_ptr_range().contains(&found.as_ptr()), "{name}");
    }
}

#[test]
fn a_shared_frame_is_the_frame() {
    let frame = LengthPrefixed::u16_be().shared(b"news").unwrap();
    assert_eq!(&frame[..], b"\0\x04news");
    assert!(Lines::new().shared(b"two\nlines").is_err());
}

proptest! {
    #[test]
    fn what_is_sent_is_received_however_it_is_cut(
        which in 0..cases(4).len(),
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..30),
        lengths in prop::collection::vec(1..300_usize, 1..20),
    ) {
        let Case { name, codec, fit } = cases(300).swap_remove(which);
        let payloads: Vec<Vec<u8>> = bytes.iter().map(|bytes| fit(bytes)).collect();
        let stream = stream(&*codec, &payloads);
        let mut lengths = lengths.iter().cycle();
        let mut rest = &stream[..];
        let pieces = std::iter::from_fn(|| {
            let (piece, behind) = rest.split_at(rest.len().min(*lengths.next()?));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(decode(&*codec, pieces), (payloads, Ok(())), "{}", name);
    }

    /// Few different bytes, so that delimiters, small lengths and their ruins come often.
    #[test]
    fn whatever_comes_means_the_same_however_it_is_cut(
        which in 0..cases(4).len(),
        bytes in prop::collection::vec(
            prop_oneof![Just(0), Just(1), Just(4), Just(b'a'), Just(b'b'), Just(b'\r'), Just(b'\n'), any::<u8>()],
            0..80,
        ),
        cuts: u32,
        maximum in 4..20_usize,
    ) {
        let Case { name, codec, .. } = cases(maximum).swap_remove(which);
        let whole = decode(&*codec, [&bytes[..]]);
        prop_assert_eq!(decode(&*codec, bytes.chunks(1)), whole.clone(), "{}", name);
        let (front, back) = bytes.split_at(bytes.len().min(32));
        let pieces = cut(front, cuts).into_iter().chain((!back.is_empty()).then_some(back));
        prop_assert_eq!(decode(&*codec, pieces), whole, "{}", name);
    }
}

/// Megabytes, in pieces as a reactor reads them and in much smaller ones.
#[test]
fn large_streams_in_random_pieces() {
    let mut word = 7_u64;
    let mut random = move |bound: usize| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (word >> 33) as usize % bound
    };
    for Case { name, codec, fit } in cases(50_000) {
        let payloads: Vec<Vec<u8>> = (0..40)
            .map(|_| {
                let size = random(60_000);
                fit(&(0..size).map(|_| random(256) as u8).collect::<Vec<u8>>())
            })
            .collect();
        let bytes = stream(&*codec, &payloads);
        for most in [3_000, 65_536] {
            let mut rest = &bytes[..];
            let pieces: Vec<&[u8]> = std::iter::from_fn(|| {
                let (piece, behind) = rest.split_at(rest.len().min(1 + random(most)));
                rest = behind;
                (!piece.is_empty()).then_some(piece)
            })
            .collect();
            assert!(decode(&*codec, pieces) == (payloads.clone(), Ok(())), "{name}: pieces of up to {most}");
        }
    }
}

#[test]
fn corpus_of_framing() {
    crate::connection::fuzz::replay("framing", super::fuzz::framing);
}
