//! [`Number`]: what can be recorded where a number is wanted.

use crate::Reading;

mod sealed {
    pub trait Sealed {}
}

/// A number of any primitive type. It is recorded as an `f64`: an integer beyond ±2^53 as the nearest one that there is.
///
/// # Examples
/// ```
/// use taba_core::Number;
///
/// assert_eq!(3.to_f64(), 3.0);
/// assert_eq!([0_u8; 7].len().to_f64(), 7.0);
/// assert_eq!(((1_u64 << 53) + 1).to_f64(), (1_u64 << 53) as f64);
/// ```
pub trait Number: Copy + sealed::Sealed {
    /// As it is recorded.
    fn to_f64(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl sealed::Sealed for $number {}

        impl Number for $number {
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

macro_rules! readings {
    ($($number:ty)*) => {$(
        impl From<$number> for Reading {
            fn from(number: $number) -> Self {
                Self::from(number.to_f64())
            }
        }
    )*};
}

numbers! { f64 f32 i8 i16 i32 i64 isize u8 u16 u32 u64 usize }
readings! { f32 i8 i16 i32 i64 isize u8 u16 u32 u64 usize }
