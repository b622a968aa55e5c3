//! Medians, and how sure they are.

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// A ratio of several rounds, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let upper = sorted.get(sorted.len() / 2).copied();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied();
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(lower, upper),
        _ => f64::NAN,
    }
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let sorted = sorted(values);
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median: median(values), min: end(sorted.first()), max: end(sorted.last()) }
    }
}

impl Ratio {
    /// Of two figures that were measured side by side, round by round: the median of the rounds'
    /// ratios, and the interval by the percentile bootstrap (Efron 1979). The draws are the same
    /// every time, so that the same figures give the same interval.
    pub(super) fn of(numerators: &[f64], denominators: &[f64]) -> Self {
        let ratios: Vec<f64> = numerators.iter().zip(denominators).map(|(a, b)| a / b).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let mut medians: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let draw: Vec<f64> =
                    ratios.iter().filter_map(|_| random.choice(&ratios).copied()).collect();
                median(&draw)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let tail = DRAWS / 40;
        Self {
            median: median(&ratios),
            low: medians.get(tail).copied().unwrap_or(f64::NAN),
            high: medians.get(DRAWS - 1 - tail).copied().unwrap_or(f64::NAN),
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Enough that the ends of the interval stand still in the digits that are shown.
const DRAWS: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
        assert_eq!(Spread::of(&[2.0, 9.0, 1.0]), Spread { median: 2.0, min: 1.0, max: 9.0 });
    }

    #[test]
    fn equal_rounds_leave_no_doubt() {
        let ratio = Ratio::of(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]);
        assert_eq!(ratio, Ratio { median: 2.0, low: 2.0, high: 2.0 });
    }

    #[test]
    fn the_interval_holds_the_median_and_stays_within_the_rounds() {
        let server = [1.0, 1.1, 0.9, 1.3, 1.0, 1.2, 1.05];
        let ratio = Ratio::of(&server, &[1.0; 7]);
        assert_eq!(ratio.median, 1.05);
        assert!(ratio.low < 1.05 && ratio.low >= 0.9, "{ratio:?}");
        assert!(ratio.high > 1.05 && ratio.high <= 1.3, "{ratio:?}");
        assert_eq!(ratio, Ratio::of(&server, &[1.0; 7]), "the same draws every time");
    }

    #[test]
    fn more_rounds_narrow_the_interval() {
        let few = [0.8, 1.0, 1.2];
        let many: Vec<f64> = few.iter().cycle().take(60).copied().collect();
        let width = |values: &[f64]| {
            let ratio = Ratio::of(values, &vec![1.0; values.len()]);
            ratio.high - ratio.low
        };
        assert!(width(&many) < width(&few));
    }
}
