//! Values as bytes.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that travels, or lies in a page, as bytes.
///
/// All types with serde's `Serialize` and `DeserializeOwned` are messages, in the form of the format
/// postcard. Equal values must give equal bytes: no hash tables in them.
///
/// A type with a form of its own implements this instead:
///
/// ```
/// use hybster::typed::{Message, decode, encode};
///
/// #[derive(Debug, PartialEq)]
/// struct Celsius(i16);
///
/// impl Message for Celsius {
///     fn encode(&self, into: &mut Vec<u8>) {
///         into.extend_from_slice(&self.0.to_be_bytes());
///     }
///
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         Some(Self(i16::from_be_bytes(bytes.try_into().ok()?)))
///     }
/// }
///
/// assert_eq!(encode(&Celsius(258)), [1, 2]);
/// assert_eq!(decode::<Celsius>(&[1]), None);
/// ```
pub trait Message: Sized {
    /// Appends the value's bytes.
    fn encode(&self, into: &mut Vec<u8>);

    /// The value of these bytes, all of them; `None` if they are those of no value. It must not panic: a
    /// client can send anything.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl<T: Serialize + DeserializeOwned> Message for T {
    /// # Panics
    /// If the type cannot be written without knowing its length before, as a `Serialize` by hand may be.
    fn encode(&self, into: &mut Vec<u8>) {
        if let Err(error) = postcard::serialize_with_flavor(self, Append(into)) {
            panic!("{} cannot be encoded: {error}", std::any::type_name::<T>());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Some(value),
            _ => None,
        }
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The bytes of a value, as those of an operation that a [`Client`](crate::client::Client) or
/// [`check_deterministic`](crate::testing::check_deterministic) is given.
#[must_use]
pub fn encode<T: Message>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// The value of bytes; `None` if they are those of no value.
#[must_use]
pub fn decode<T: Message>(bytes: &[u8]) -> Option<T> {
    T::decode(bytes)
}
