//! Points in time as data. Nothing here reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the point `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the point `after` later, saturating at the end of time.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns how long before `self` the point `earlier` lies; zero when the clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns Unix seconds with milliseconds as the fraction: the wire's `ts`.
    #[expect(clippy::as_conversions, reason = "milliseconds of any real date are far below 2^53 and convert exactly")]
    pub fn unix_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Returns the date and time as RFC 3339 in UTC with milliseconds, `2026-11-24T00:22:27.123Z`.
    pub fn rfc3339(self) -> String {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time_of_day();
        let milli = self.0.rem_euclid(1000);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }

    /// Returns the date and time as identifiers carry it, `20261124_002227`.
    pub fn compact(self) -> String {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time_of_day();
        format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
    }

    /// Returns the beginning, in UTC, of a day written `2026-11-24`.
    pub fn parse_date(raw: &str) -> Option<Self> {
        let [year, month, day] = <[&str; 3]>::try_from(raw.split('-').collect::<Vec<_>>()).ok()?;
        let number = |text: &str, digits: usize| {
            let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>().ok().filter(|_| plain)
        };
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        // The other way round of `date`: the same eras, the same years from March.
        let march_year = year - i64::from(month <= 2);
        let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let found = Self((era * 146_097 + day_of_era - 719_468) * 86_400_000);
        // What is no day, such as the 31st of April, has become another one.
        (found.date() == (year, month, day)).then_some(found)
    }

    fn time_of_day(self) -> (i64, i64, i64) {
        let second = self.0.div_euclid(1000).rem_euclid(86_400);
        (second / 3600, second / 60 % 60, second % 60)
    }

    /// The proleptic Gregorian date. Years are counted from March, so that the leap day is a year's last, in eras of
    /// 400 years, which all have the same number of days.
    fn date(self) -> (i64, i64, i64) {
        let day_number = self.0.div_euclid(86_400_000) + 719_468;
        let era = day_number.div_euclid(146_097);
        let day_of_era = day_number.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_479_747_123, "2026-11-24T00:22:27.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).rfc3339(), expected);
        }
        assert_eq!(Timestamp::from_millis(1_795_479_747_123).compact(), "20261124_002227");
    }

    #[test]
    fn a_day_is_read_as_it_is_written_and_nothing_else_is_one() {
        for (raw, millis) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2100-02-28", 4_107_456_000_000),
            ("2100-03-01", 4_107_542_400_000),
            ("0000-01-01", -62_167_219_200_000),
        ] {
            let parsed = Timestamp::parse_date(raw).unwrap();
            assert_eq!(parsed, Timestamp::from_millis(millis), "{raw}");
            assert!(parsed.rfc3339().starts_with(raw), "{raw}");
        }
        for bad in [
            "",
            "2026-02-29",
            "2100-02-29",
            "2026-04-31",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "2026-01-00",
            "+026-01-01",
            "2026-01-01 ",
            "2026-01-01-01",
            "20260101",
        ] {
            assert_eq!(Timestamp::parse_date(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_clock_that_went_backwards_measures_zero() {
        let late = Timestamp::from_millis(2000);
        let early = Timestamp::from_millis(500);
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.since(early), Duration::from_millis(1500));
    }
}
