//! Bytes that tell where they belong: the streams of remotes, and the frames that the server answers with.

/// The byte at `position` of the stream that `tag` names. Its first eight bytes are the tag itself.
pub(crate) fn stream_byte(tag: u64, position: u64) -> u8 {
    if position < 8 {
        return tag.to_le_bytes()[position as usize];
    }
    let word = (tag ^ (position >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (8 * (position & 7))) as u8
}

pub(crate) fn stream(tag: u64, from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|position| stream_byte(tag, position)).collect()
}

/// Who wrote a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A callback of the connection.
    Own,
    /// Another callback of the reactor.
    Other,
    /// Another thread.
    Handle,
}

pub(crate) const SOURCES: [Source; 3] = [Source::Own, Source::Other, Source::Handle];

pub(crate) const HEADER: usize = 14;

/// A frame for the connection labelled `label`.
pub(crate) fn frame(label: u32, source: Source, sequence: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0xc0, source as u8];
    frame.extend((length as u32).to_le_bytes());
    frame.extend(sequence.to_le_bytes());
    frame.extend(label.to_le_bytes());
    frame.extend(payload(label, source, sequence, length));
    frame
}

fn payload(label: u32, source: Source, sequence: u32, length: usize) -> impl Iterator<Item = u8> {
    let tag = u64::from(label) << 32 | u64::from(sequence) << 2 | source as u64;
    (0..length as u64).map(move |position| stream_byte(tag, position + 8))
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) label: u32,
    pub(crate) source: Source,
    pub(crate) sequence: u32,
    pub(crate) length: usize,
}

/// Takes a received stream apart; the frames, and how many bytes of an incomplete one follow.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<(Vec<Frame>, usize), String> {
    let mut frames = Vec::new();
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if bytes[0] != 0xc0 || usize::from(bytes[1]) >= SOURCES.len() {
            return Err(format!("no frame begins with {:?}, after {frames:?}", &bytes[..HEADER]));
        }
        let source = SOURCES[usize::from(bytes[1])];
        let frame = Frame { label: word(10), source, sequence: word(6), length: word(2) as usize };
        let there = frame.length.min(bytes.len() - HEADER);
        let expected = payload(frame.label, source, frame.sequence, there);
        if !expected.eq(bytes[HEADER..HEADER + there].iter().copied()) {
            return Err(format!("{frame:?} holds other bytes than were written"));
        }
        if there < frame.length {
            break;
        }
        bytes = &bytes[HEADER + there..];
        frames.push(frame);
    }
    Ok((frames, bytes.len()))
}
