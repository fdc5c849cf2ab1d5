//! From the path of a target to the name of a file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What a path names below the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Relative, of plain names only; empty for the root itself.
    pub(super) path: PathBuf,
    /// It ends with a slash, or is the root.
    pub(super) is_directory: bool,
}

/// Decodes the path of a target, as far as it is below the prefix. `None` where nothing can be served by that name:
/// it has an empty name, one that begins with a dot (`..` is one) or has a slash, a backslash or a NUL in it, or an
/// escape that is none.
pub(super) fn decode(path: &str) -> Option<Named> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut decoded = Vec::with_capacity(path.len());
    let mut names = path.split('/').peekable();
    let mut is_directory = true;
    while let Some(name) = names.next() {
        is_directory = name.is_empty();
        if is_directory {
            // Behind the last slash there is nothing to be named.
            return names.peek().is_none().then(|| named(decoded, true));
        }
        if !decoded.is_empty() {
            decoded.push(b'/');
        }
        let start = decoded.len();
        decode_name(name, &mut decoded)?;
        let is_first = start == 0;
        let is_hidden = decoded[start] == b'.' && !(is_first && &decoded[start..] == b".well-known");
        if is_hidden {
            return None;
        }
    }
    Some(named(decoded, is_directory))
}

fn named(path: Vec<u8>, is_directory: bool) -> Named {
    Named { path: PathBuf::from(OsString::from_vec(path)), is_directory }
}

fn decode_name(name: &str, decoded: &mut Vec<u8>) -> Option<()> {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        };
        if matches!(byte, b'/' | b'\\' | 0) {
            return None;
        }
        decoded.push(byte);
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_directories() {
        for (path, name, is_directory) in [
            ("", "", true),
            ("/", "", true),
            ("/a", "a", false),
            ("a", "a", false),
            ("/a/", "a", true),
            ("/a/b.txt", "a/b.txt", false),
            ("/a%20b/%C3%A4", "a b/\u{e4}", false),
            ("/a..b/c.", "a..b/c.", false),
            ("/%41%2e%42", "A.B", false),
            ("/100%25", "100%", false),
            ("/.well-known/x", ".well-known/x", false),
        ] {
            assert_eq!(decode(path), Some(Named { path: name.into(), is_directory }), "{path}");
        }
    }

    #[test]
    fn nothing_is_named_outside_the_root() {
        for path in [
            "..",
            "/..",
            "/../",
            "/../etc/passwd",
            "/a/../../b",
            "/a/..",
            "/.",
            "/./a",
            "/%2e%2e/a",
            "/%2E./a",
            "/.%2e/a",
            "/..%2fa",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/..\\a",
            "/%00",
            "/a%00.txt",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.git/config",
            "/a/.hidden",
            "/a/.well-known/x",
            "/%",
            "/%4",
            "/%4g",
            "/%zz",
            "/a%",
            "/%-1",
            "/%+1",
        ] {
            assert_eq!(decode(path), None, "{path}");
        }
    }
}
