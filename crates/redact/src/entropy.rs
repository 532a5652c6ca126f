//! How surprising a text is.

/// Returns Shannon's entropy of the bytes, in bits a byte.
pub(crate) fn shannon(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / all).map(|part| -part * part.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_nothing_for_one_letter_and_a_bit_for_each_doubling() {
        assert_eq!((shannon(b""), shannon(b"aaaa"), shannon(b"abab"), shannon(b"abcdabcd")), (0.0, 0.0, 1.0, 2.0));
    }
}
