//! Values that nobody handed in: the longest, the most extreme and very many different ones of any type, by its `Deserialize`.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};

use crate::backoff::Noise;
use crate::limits::VALUE_BYTES_MAX;
use crate::wire::Value;

/// How deep a value may be: types that contain themselves end there.
const DEPTH_MAX: usize = 8;
/// Elements of a list or a map in a value.
const ELEMENTS_MAX: usize = 64;
/// Tries to find one value that is valid.
const TRIES: usize = 16;

/// Makes values: a deserializer whose input is chance. As the form in which values travel, it has no names of fields and says
/// nothing about types, so what can travel can be made.
pub(super) struct Maximal {
    noise: Noise,
    /// Bytes of a text, at most; a list is as many elements as there are 16 bytes.
    size: usize,
    size_max: usize,
    depth: usize,
}

impl Maximal {
    /// A maker of values that are valid, and as long as they may be.
    pub(super) fn of<V: Value>() -> Self {
        let mut maximal = Self { noise: Noise::new(1), size: 0, size_max: 0, depth: 0 };
        let (mut fits, mut too_long) = (0, VALUE_BYTES_MAX + 1);
        while too_long - fits > 1 {
            let size = usize::midpoint(fits, too_long);
            maximal.size_max = size;
            if maximal.longest::<V>().is_some() {
                fits = size;
            } else {
                too_long = size;
            }
        }
        maximal.size_max = fits;
        maximal
    }

    /// One of the longest values; `None` when none was found.
    pub(super) fn longest<V: Value>(&mut self) -> Option<V> {
        self.value(self.size_max)
    }

    /// A value of common length, unlike those before.
    pub(super) fn distinct<V: Value>(&mut self) -> Option<V> {
        self.value(self.size_max.min(12))
    }

    fn value<V: Value>(&mut self, size: usize) -> Option<V> {
        (0..TRIES).find_map(|_| {
            (self.size, self.depth) = (size, 0);
            let value = V::deserialize(&mut *self).ok()?;
            (value.is_valid() && travels(&value)).then_some(value)
        })
    }

    /// One in eight is an extreme.
    fn integer(&mut self) -> u128 {
        let bits = u128::from(self.noise.number()) << 64 | u128::from(self.noise.number());
        match bits % 24 {
            0 => 0,
            1 => u128::MAX,
            // Of signed types of each width, the largest after a shift by the caller.
            2 => u128::MAX >> 1,
            _ => bits,
        }
    }

    fn number(&mut self) -> f64 {
        const EXTREMES: [f64; 8] = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 1.0, 0.0, -0.0];
        let bits = self.noise.number();
        let number = f64::from_bits(bits);
        match bits % 8 {
            0 => EXTREMES[(self.noise.number() % 8) as usize],
            _ if number.is_finite() => number,
            _ => (bits >> 12) as f64,
        }
    }

    /// A text of `size` bytes that was not there before, if that many bytes can tell.
    fn text(&mut self) -> String {
        let mut text = format!("{:x}", self.noise.number());
        text.truncate(self.size);
        text.push_str(&"x".repeat(self.size - text.len()));
        text
    }

    fn elements(&mut self) -> Elements<'_> {
        let count = if self.depth >= DEPTH_MAX { 0 } else { (self.size / 16).clamp(1, ELEMENTS_MAX) };
        self.inside(count, self.size / count.max(1))
    }

    fn inside(&mut self, count: usize, size: usize) -> Elements<'_> {
        let outside = self.size;
        self.size = size;
        self.depth += 1;
        Elements { of: self, left: count, outside }
    }
}

/// A value travels when it can be written, and is no longer than a value may be.
fn travels<V: Value>(value: &V) -> bool {
    let mut bytes = Vec::new();
    value.is_encodable() && {
        V::encode_column(std::slice::from_ref(value), &mut bytes);
        V::decode_column(&mut crate::wire::Reader::new(&bytes), 1).is_ok()
    }
}

/// A type asks what comes, or does not take what it asked for.
#[derive(Debug)]
pub(super) struct NotMade;

impl fmt::Display for NotMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no value can be made of this type")
    }
}

impl std::error::Error for NotMade {}

impl de::Error for NotMade {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
            visitor.$visit((self.integer() >> (u128::BITS - <$type>::BITS)) as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Maximal {
    type Error = NotMade;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotMade> {
        Err(NotMade)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_bool(self.noise.number() % 2 == 0)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_f32(self.number().clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_f64(self.number())
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_char(char::from_u32(self.noise.number() as u32 & 0xf_ffff).unwrap_or(char::MAX))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_string(self.text())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_byte_buf(self.text().into_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_byte_buf(self.text().into_bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        if self.depth >= DEPTH_MAX || self.noise.number() % 8 == 0 {
            return visitor.visit_none();
        }
        let inside = self.inside(1, self.size);
        visitor.visit_some(&mut *inside.of)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_seq(self.elements())
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_seq(self.inside(count, self.size))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        self.deserialize_tuple(count, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotMade> {
        visitor.visit_map(self.elements())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        let count = variants.len().max(1) as u64;
        // A type that contains itself mostly has a variant that ends it, and mostly it is the first.
        let variant = if self.depth >= DEPTH_MAX { 0 } else { self.noise.number() % count };
        visitor.visit_enum(Variant { of: self, variant: variant as u32 })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotMade> {
        Err(NotMade)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotMade> {
        Err(NotMade)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// What is inside a value: elements, entries or fields.
struct Elements<'a> {
    of: &'a mut Maximal,
    left: usize,
    /// The size around it.
    outside: usize,
}

impl Drop for Elements<'_> {
    fn drop(&mut self) {
        self.of.size = self.outside;
        self.of.depth -= 1;
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = NotMade;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, NotMade> {
        if self.left == 0 || self.of.depth > 2 * DEPTH_MAX {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.of).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_> {
    type Error = NotMade;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, NotMade> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, NotMade> {
        seed.deserialize(&mut *self.of)
    }
}

/// A variant of an enum.
struct Variant<'a> {
    of: &'a mut Maximal,
    variant: u32,
}

impl<'a, 'de> de::EnumAccess<'de> for Variant<'a> {
    type Error = NotMade;
    type Variant = &'a mut Maximal;

    fn variant_seed<T: de::DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), NotMade> {
        let index: U32Deserializer<NotMade> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, self.of))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Maximal {
    type Error = NotMade;

    fn unit_variant(self) -> Result<(), NotMade> {
        Ok(())
    }

    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, NotMade> {
        let inside = self.inside(1, self.size);
        seed.deserialize(&mut *inside.of)
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, NotMade> {
        self.deserialize_tuple(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotMade> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
