//! Every short string over an alphabet: small inputs are exhausted before random ones are drawn.

/// Calls `check` with every concatenation of at most `length_max` symbols, the empty one included.
pub(crate) fn every_string(symbols: &[&[u8]], length_max: usize, mut check: impl FnMut(&[u8])) {
    let mut digits: Vec<usize> = Vec::new();
    let mut string: Vec<u8> = Vec::new();
    loop {
        string.clear();
        for &digit in &digits {
            string.extend_from_slice(symbols.get(digit).copied().unwrap_or_default());
        }
        check(&string);
        // Counts on by one, in the base of the alphabet, and to one digit more after the last.
        let carry = digits.iter_mut().rev().all(|digit| {
            *digit = (*digit + 1) % symbols.len();
            *digit == 0
        });
        if carry {
            if digits.len() == length_max {
                return;
            }
            digits.push(0);
        }
    }
}
