//! Ranges of `seq`: which of them are not covered by others.

/// First and last, both included.
pub type SeqInterval = (u64, u64);

/// What of `wanted` lies in none of `covered`, in order.
#[must_use]
pub fn without(wanted: SeqInterval, covered: &[SeqInterval]) -> Vec<SeqInterval> {
    let mut covered = covered.to_vec();
    covered.sort_unstable();
    let (mut next, last) = wanted;
    let mut left = Vec::new();
    for (first, through) in covered {
        if last < first {
            break;
        }
        if next < first {
            left.push((next, first - 1));
        }
        let Some(behind) = through.checked_add(1) else { return left };
        next = next.max(behind);
    }
    if next <= last {
        left.push((next, last));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn what_is_not_covered_is_left() {
        let check = |wanted, covered: &[_], left: &[_]| assert_eq!(without(wanted, covered), left);
        check((1, 9), &[], &[(1, 9)]);
        check((1, 9), &[(1, 9)], &[]);
        check((1, 9), &[(3, 4), (6, 6)], &[(1, 2), (5, 5), (7, 9)]);
        check((5, 9), &[(7, 20), (1, 5)], &[(6, 6)]);
        check((5, 9), &[(10, 20), (1, 4)], &[(5, 9)]);
        check((5, 4), &[], &[]);
        check((1, u64::MAX), &[(2, u64::MAX)], &[(1, 1)]);
    }
}
