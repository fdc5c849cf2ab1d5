use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A range of an open file, to be sent without passing through the program's memory
/// ([`Conn::write_file`](crate::Conn::write_file)).
///
/// It keeps the file open, and shares it: cloning costs one atomic increment, and any number of connections can
/// send ranges of one file at a time, for nothing depends on the file's own position.
///
/// ```
/// use std::fs::File;
/// use corelane::FileSlice;
///
/// # let path = std::env::temp_dir().join(format!("corelane-doc-{}", std::process::id()));
/// # std::fs::write(&path, b"hello, world")?;
/// let whole = FileSlice::whole(File::open(&path)?)?;
/// assert_eq!(whole.len(), 12);
/// let world = whole.range(7, 5)?;
/// # std::fs::remove_file(&path)?;
/// # assert_eq!(world.len(), 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FileSlice {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl FileSlice {
    /// `length` bytes of `file` from `offset` on. Whether the file has them is found out when they are sent.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the range ends beyond 2^63 - 1, as no file's can.
    pub fn new(file: impl Into<Arc<File>>, offset: u64, length: u64) -> io::Result<Self> {
        match offset.checked_add(length) {
            Some(end) if i64::try_from(end).is_ok() => Ok(Self { file: file.into(), offset, length }),
            _ => {
                let text = format!("no file has {length} bytes behind offset {offset}");
                Err(io::Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }

    /// All of `file`, as long as it is now.
    ///
    /// # Errors
    ///
    /// What fstat(2) says.
    pub fn whole(file: impl Into<Arc<File>>) -> io::Result<Self> {
        let file = file.into();
        let length = file.metadata()?.len();
        Self::new(file, 0, length)
    }

    /// A range of the same file; `offset` counts from the beginning of the file, not of this range.
    ///
    /// # Errors
    ///
    /// As [`FileSlice::new`].
    pub fn range(&self, offset: u64, length: u64) -> io::Result<Self> {
        Self::new(Arc::clone(&self.file), offset, length)
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Leaves out the first `count` bytes, at most all of them.
    pub(crate) fn advance(&mut self, count: u64) {
        let count = count.min(self.length);
        self.offset += count;
        self.length -= count;
    }

    /// Reads from its beginning as much as `buffer` takes; at least one byte, or it is an error.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.length).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            match self.file.read_at(&mut buffer[..wanted], self.offset) {
                Ok(0) => return Err(truncated()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// The file ends before what was promised of it.
pub(crate) fn truncated() -> io::Error {
    ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn a_range_that_no_file_has_is_refused() {
        assert!(FileSlice::new(null(), 1, i64::MAX as u64 - 1).is_ok());
        for (offset, length) in [(1, i64::MAX as u64), (u64::MAX, 1), (1, u64::MAX)] {
            let error = FileSlice::new(null(), offset, length).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let error = FileSlice::new(null(), 0, 1).unwrap().read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
