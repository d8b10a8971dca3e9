//! Proleptic Gregorian calendar arithmetic: days since 1970-01-01 and back.

/// Days before 1970-01-01, counted from 0000-01-01.
const EPOCH: i64 = days_before_year(1970);

const fn days_before_year(year: i64) -> i64 {
    let last = year - 1;
    // Year 0 is a leap year, hence the one.
    365 * year + last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400) + 1
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

fn month_lengths(year: i64) -> [i64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// The day number of a date; `month` is clamped to 1 to 12, and a `day` outside the month counts on from its first day.
pub(super) fn day_number(year: i64, month: u8, day: u8) -> i64 {
    let whole_months = usize::from(month.clamp(1, 12) - 1);
    let before: i64 = month_lengths(year)[..whole_months].iter().sum();
    days_before_year(year) - EPOCH + before + i64::from(day) - 1
}

/// The year, month (1 to 12) and day (1 to 31) of a day number.
pub(super) fn date_of(day_number: i64) -> (i64, u8, u8) {
    let days = day_number + EPOCH;
    // 146097 days make 400 years; the estimate is off by one at most.
    let mut year = (days * 400).div_euclid(146_097);
    while days_before_year(year + 1) <= days {
        year += 1;
    }
    while days_before_year(year) > days {
        year -= 1;
    }
    let mut day = days - days_before_year(year);
    for (month, length) in (1..).zip(month_lengths(year)) {
        if day < length {
            return (year, month, day as u8 + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

/// The day of the week, Sunday being 1.
pub(super) fn weekday_of(day_number: i64) -> u8 {
    // 1970-01-01 was a Thursday.
    (day_number + 4).rem_euclid(7) as u8 + 1
}
