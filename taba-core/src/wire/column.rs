//! Columns: many values of one kind, laid out for small size and fast decoding.
//!
//! ```text
//! integers  | width u8: 0 1 2 4 8 | base zigzag | n * width bytes |          value = base + offset, little-endian
//! times     | unit u8: 0 = 1 µs, 1 = 1 ms, 2 = 1 s | first zigzag | integers: n - 1 differences |
//! numbers   | 0 | n * f64 | or | 1 | integers | or | 2 | one f64 for all |
//! chunks    | integers: n lengths | the bytes of all |
//! ```
//!
//! All offsets of a column have one fixed width (frame of reference): they decode without branches, and compression
//! removes what a variable width would save.

use super::{Reader, WireError, put_i64};
use crate::time::Timestamp;

const UNITS: [i64; 3] = [1, 1_000, 1_000_000];

/// Appends a column of integers.
pub fn put_integers(values: &[i64], out: &mut Vec<u8>) {
    let base = values.iter().copied().min().unwrap_or(0);
    let span = values.iter().map(|v| v.wrapping_sub(base) as u64).max().unwrap_or(0);
    let width = match span {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    out.push(width);
    put_i64(base, out);
    out.reserve(values.len() * usize::from(width));
    let offsets = values.iter().map(|v| v.wrapping_sub(base) as u64);
    match width {
        0 => {}
        1 => out.extend(offsets.map(|v| v as u8)),
        2 => offsets.for_each(|v| out.extend_from_slice(&(v as u16).to_le_bytes())),
        4 => offsets.for_each(|v| out.extend_from_slice(&(v as u32).to_le_bytes())),
        _ => offsets.for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
    }
}

/// Decodes a column of integers and passes each to `each`.
fn each_integer<T>(
    reader: &mut Reader<'_>,
    count: usize,
    what: &'static str,
    out: &mut Vec<T>,
    mut each: impl FnMut(i64) -> T,
) -> Result<(), WireError> {
    let width = reader.u8(what)?;
    if !matches!(width, 0 | 1 | 2 | 4 | 8) {
        return Err(WireError::Malformed { what });
    }
    let base = reader.i64(what)?;
    let bytes = reader.take(count.saturating_mul(usize::from(width)), what)?;
    let mut value = |offset: u64| each(base.wrapping_add(offset as i64));
    match width {
        0 => out.extend((0..count).map(|_| value(0))),
        1 => out.extend(bytes.iter().map(|&b| value(u64::from(b)))),
        2 => out.extend(arrays(bytes).map(|b| value(u64::from(u16::from_le_bytes(b))))),
        4 => out.extend(arrays(bytes).map(|b| value(u64::from(u32::from_le_bytes(b))))),
        _ => out.extend(arrays(bytes).map(|b| value(u64::from_le_bytes(b)))),
    }
    Ok(())
}

/// Decodes a column of integers.
///
/// # Errors
/// [`WireError`] when the bytes are no column of these values.
pub fn integers(reader: &mut Reader<'_>, count: usize, what: &'static str) -> Result<Vec<i64>, WireError> {
    let mut out = Vec::new();
    each_integer(reader, count, what, &mut out, |v| v)?;
    Ok(out)
}

/// Appends a column of at least one time.
pub fn put_times(times: &[Timestamp], out: &mut Vec<u8>) {
    let fits = |unit: i64| times.iter().all(|t| t.as_micros() % unit == 0);
    let unit = if fits(UNITS[2]) { 2 } else { usize::from(fits(UNITS[1])) };
    out.push(unit as u8);
    let scaled: Vec<i64> = times.iter().map(|t| t.as_micros() / UNITS[unit]).collect();
    put_i64(scaled.first().copied().unwrap_or(0), out);
    let steps: Vec<i64> = scaled.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    put_integers(&steps, out);
}

/// Decodes a column of `count` times, at least one.
///
/// # Errors
/// [`WireError`] when the bytes are no column of these values.
pub fn times(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Timestamp>, WireError> {
    const WHAT: &str = "a column of times";
    let unit = *UNITS.get(usize::from(reader.u8(WHAT)?)).ok_or(WireError::Malformed { what: WHAT })?;
    let first = reader.i64(WHAT)?;
    let steps = count.checked_sub(1).ok_or(WireError::Malformed { what: WHAT })?;
    let mut out = Vec::new();
    // A step can take 0 bytes, so only the caller's bound on `count` bounds this.
    out.reserve_exact(count);
    let mut at = first;
    out.push(Timestamp::from_micros(at.wrapping_mul(unit)));
    each_integer(reader, steps, WHAT, &mut out, |step| {
        at = at.wrapping_add(step);
        Timestamp::from_micros(at.wrapping_mul(unit))
    })?;
    Ok(out)
}

/// Chunks of `N` bytes.
fn arrays<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).map(|chunk| chunk.try_into().expect("each chunk has N bytes"))
}

/// Appends a column of numbers.
pub fn put_numbers(values: &[f64], out: &mut Vec<u8>) {
    let same = |first: &&f64| values.iter().all(|v| v.to_bits() == first.to_bits());
    if let Some(first) = values.first().filter(same) {
        out.push(2);
        out.extend_from_slice(&first.to_le_bytes());
        return;
    }
    // Comparing bits keeps -0.0, which is no integer.
    let is_integer = |v: &f64| (*v as i64 as f64).to_bits() == v.to_bits() && v.abs() < 9e15;
    if values.iter().all(is_integer) {
        let integers: Vec<i64> = values.iter().map(|v| *v as i64).collect();
        out.push(1);
        put_integers(&integers, out);
    } else {
        out.push(0);
        out.reserve(values.len() * 8);
        values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
}

/// Decodes a column of numbers, which may include NaN and infinities.
///
/// # Errors
/// [`WireError`] when the bytes are no column of these values.
pub fn numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, WireError> {
    const WHAT: &str = "a column of numbers";
    match reader.u8(WHAT)? {
        0 => {
            let bytes = reader.take(count.saturating_mul(8), WHAT)?;
            Ok(arrays(bytes).map(f64::from_le_bytes).collect())
        }
        1 => {
            let mut out = Vec::new();
            each_integer(reader, count, WHAT, &mut out, |v| v as f64)?;
            Ok(out)
        }
        2 => Ok(vec![f64::from_le_bytes(reader.array(WHAT)?); count]),
        _ => Err(WireError::Malformed { what: WHAT }),
    }
}

/// Appends a column of texts or opaque values.
pub fn put_chunks<T: AsRef<[u8]>>(chunks: &[T], out: &mut Vec<u8>) {
    let lengths: Vec<i64> = chunks.iter().map(|chunk| chunk.as_ref().len() as i64).collect();
    put_integers(&lengths, out);
    chunks.iter().for_each(|chunk| out.extend_from_slice(chunk.as_ref()));
}

/// Decodes a column of `count` chunks, none longer than `bytes_max`.
///
/// # Errors
/// [`WireError`] when the bytes are no column of these values.
pub fn chunks<'a>(
    reader: &mut Reader<'a>,
    count: usize,
    bytes_max: usize,
) -> Result<Vec<&'a [u8]>, WireError> {
    const WHAT: &str = "a column of values";
    let lengths = integers(reader, count, WHAT)?;
    let mut out = Vec::new();
    for length in lengths {
        let length = u64::try_from(length).map_err(|_| WireError::Malformed { what: WHAT })?;
        if length > bytes_max as u64 {
            return Err(WireError::TooLarge {
                what: "bytes of one value",
                found: length,
                max: bytes_max as u64,
            });
        }
        out.push(reader.take(length as usize, WHAT)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), (-70_000_i32..70_000).prop_map(f64::from), Just(-0.0), Just(1.0)]
    }

    #[test]
    fn a_column_is_as_wide_as_it_has_to_be() {
        let width = |last: i64| {
            let mut out = Vec::new();
            put_integers(&[0, last], &mut out);
            let read = integers(&mut Reader::new(&out), 2, "integers");
            assert_eq!(read, Ok(vec![0, last]));
            out[0]
        };
        let ends = [0, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, i64::MAX];
        assert_eq!(ends.map(width), [0, 1, 2, 2, 4, 4, 8, 8]);
        let mut same = Vec::new();
        put_numbers(&[0.1; 1000], &mut same);
        assert_eq!(same.len(), 9, "one number, however often it comes");
    }

    #[test]
    fn a_value_may_reach_its_bound_and_not_pass_it() {
        let mut out = Vec::new();
        put_chunks(&["abc"], &mut out);
        assert_eq!(chunks(&mut Reader::new(&out), 1, 3), Ok(vec![b"abc".as_slice()]));
        assert!(matches!(chunks(&mut Reader::new(&out), 1, 2), Err(WireError::TooLarge { found: 3, .. })));
    }

    proptest! {
        #[test]
        fn integers_come_back(values in prop::collection::vec(any::<i64>(), 0..50), small in prop::collection::vec(-300_i64..300, 0..50)) {
            for values in [values, small] {
                let mut out = Vec::new();
                put_integers(&values, &mut out);
                let mut reader = Reader::new(&out);
                prop_assert_eq!(integers(&mut reader, values.len(), "test").unwrap(), values);
                prop_assert!(reader.finish("test").is_ok());
            }
        }

        #[test]
        fn times_come_back(micros in prop::collection::vec(any::<i64>(), 1..50), unit in 0_usize..3) {
            let times_in: Vec<_> = micros.iter().map(|m| Timestamp::from_micros(m / UNITS[unit] * UNITS[unit])).collect();
            let mut out = Vec::new();
            put_times(&times_in, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(times(&mut reader, times_in.len()).unwrap(), times_in);
            prop_assert!(reader.finish("test").is_ok());
        }

        #[test]
        fn numbers_come_back_to_the_bit(values in prop::collection::vec(number(), 0..50)) {
            let mut out = Vec::new();
            put_numbers(&values, &mut out);
            let mut reader = Reader::new(&out);
            let back = numbers(&mut reader, values.len()).unwrap();
            prop_assert!(values.iter().map(|v| v.to_bits()).eq(back.iter().map(|v| v.to_bits())));
            prop_assert!(reader.finish("test").is_ok());
        }

        #[test]
        fn chunks_come_back(values in prop::collection::vec("[a-zé]{0,9}", 0..50)) {
            let mut out = Vec::new();
            put_chunks(&values, &mut out);
            let mut reader = Reader::new(&out);
            let back = chunks(&mut reader, values.len(), 100).unwrap();
            prop_assert!(values.iter().map(String::as_bytes).eq(back));
            prop_assert!(reader.finish("test").is_ok());
        }

        #[test]
        fn hostile_columns_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_usize..1000) {
            let _ = times(&mut Reader::new(&bytes), count);
            let _ = numbers(&mut Reader::new(&bytes), count);
            let _ = chunks(&mut Reader::new(&bytes), count, 100);
        }
    }
}
