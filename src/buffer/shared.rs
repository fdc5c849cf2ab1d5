use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes that any number of connections, reactors and threads can have in flight without a copy.
///
/// Cloning costs one atomic increment. A [`Shared`] made of a `Vec<u8>` takes the vector as it is; one
/// made of a slice copies it once.
///
/// ```
/// use corelane::Shared;
///
/// let price = Shared::from(b"EURUSD 1.0842\n".as_slice());
/// let same = price.clone();
/// assert_eq!(price.as_ptr(), same.as_ptr());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shared(Arc<Vec<u8>>);

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Shared {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl From<&[u8]> for Shared {
    fn from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Shared {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(bytes.to_vec())
    }
}

impl From<String> for Shared {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl From<&str> for Shared {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

/// Takes the bytes back out: without a copy if nobody else has them any more.
impl From<Shared> for Vec<u8> {
    fn from(bytes: Shared) -> Self {
        Arc::unwrap_or_clone(bytes.0)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_holder_gets_the_bytes_back_uncopied() {
        let shared = Shared::from(vec![7; 100]);
        let (start, other) = (shared.as_ptr(), shared.clone());
        let copy = Vec::from(shared);
        assert_eq!((copy.as_ptr() == start, &copy[..]), (false, &other[..]));
        let taken = Vec::from(other);
        assert_eq!(taken.as_ptr(), start);
    }
}
