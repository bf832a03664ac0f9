//! Local times, where a file has them: the IANA zone that the YAML names makes them universal.
//!
//! When clocks go forward some local times do not exist, and when they go back some come twice. Neither
//! is passed over silently ([`super::quality::Quality::max_local_times`]). The rules are those of the
//! IANA database that is compiled in; the machine's own is never asked.

use chrono::{LocalResult, NaiveDate, TimeZone};
use chrono_tz::Tz;

use super::event::Place;
use super::quality::{Fault, Tally};
use super::time::{DAY, SECOND, Stamp, Zone};
use crate::{Invalid, Result};

/// Makes local times universal, row by row.
#[derive(Clone, Debug)]
pub struct Local {
    zone: Tz,
    /// The last time, by which one that comes twice is told apart.
    last: i64,
    /// Whether a file's first stamp was a day without a time.
    days: Option<bool>,
}

/// The zone of a name.
///
/// # Errors
/// There is none.
pub fn named(name: &str) -> Result<Tz, Invalid> {
    name.parse().map_err(|_| {
        let near = chrono_tz::TZ_VARIANTS
            .iter()
            .map(|zone| (strsim::jaro_winkler(zone.name(), name), zone.name()))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let help = match near {
            Some((score, near)) if score > 0.8 => format!("is `{near}` meant? "),
            _ => String::new(),
        };
        Invalid::new("time_zone", format!("there is no time zone `{name}`"))
            .help(help + "it is a name of the IANA database, such as America/New_York")
    })
}

/// What [`Local`] says to do of a time that is none, or two.
const HINT: &str = "write the times with an offset or in UTC";

impl Local {
    /// Of a zone's name; `None` where there is none.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn new(name: Option<&str>) -> Result<Option<Local>, Invalid> {
        let local = |zone| Local { zone, last: i64::MIN, days: None };
        Ok(name.map(named).transpose()?.map(local))
    }

    /// A new file begins.
    pub fn start(&mut self) {
        self.days = None;
    }

    /// The universal time of a stamp. One that says its zone, or counts from 1970, stays as it is, and so
    /// do the stamps of a file of days. `None` where it does not exist and may be left out.
    ///
    /// # Errors
    /// More such faults than may pass, or a time in a file that began with days.
    pub fn settle(
        &mut self,
        stamp: Stamp,
        text: &str,
        place: Place,
        tally: &mut Tally,
    ) -> Result<Option<Stamp>> {
        let days = *self.days.get_or_insert(stamp.zone == Zone::Day);
        match (stamp.zone, days) {
            (Zone::Offset | Zone::Epoch, _) | (Zone::Day, true) => return Ok(Some(stamp)),
            (Zone::None, true) => {
                let what = format!("`{text}` has a time of day, and the first stamp has none");
                return Err(tally.bad(place, what).hint("write all times of a file alike"));
            }
            (Zone::None | Zone::Day, false) => {}
        }
        let (seconds, nanos) = (stamp.time.div_euclid(SECOND), stamp.time.rem_euclid(SECOND));
        let of_day = seconds.rem_euclid(DAY / SECOND) as u32;
        let days = stamp.time.div_euclid(DAY);
        // 719,163 days lie between 0001-01-01 and 1970-01-01.
        let local = NaiveDate::from_num_days_from_ce_opt(days as i32 + 719_163)
            .and_then(|date| date.and_hms_opt(of_day / 3600, of_day / 60 % 60, of_day % 60));
        let found = local.map_or(LocalResult::None, |l| self.zone.from_local_datetime(&l));
        let at = |time: chrono::DateTime<Tz>| time.timestamp() * SECOND + nanos;
        let time = match found {
            LocalResult::Single(time) => at(time),
            LocalResult::Ambiguous(first, second) => {
                let what =
                    || format!("`{text}` comes twice in {}: clocks go back", self.zone.name());
                tally.fault(Fault::LocalTime, place, what, HINT)?;
                match at(first) {
                    first if first > self.last => first,
                    _ => at(second),
                }
            }
            LocalResult::None => {
                let what = || {
                    format!("`{text}` does not exist in {}: clocks go forward", self.zone.name())
                };
                tally.fault(Fault::LocalTime, place, what, HINT)?;
                return Ok(None);
            }
        };
        self.last = time;
        Ok(Some(Stamp { time, zone: Zone::Offset, ..stamp }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::quality::Quality;
    use super::super::time::parse;
    use super::*;

    fn settle(zone: &str, most: u64, texts: &[&str]) -> Vec<Result<Option<String>, String>> {
        let mut local = Local::new(Some(zone)).unwrap().unwrap();
        let quality = Quality { max_local_times: most, ..Quality::default() };
        let mut tally = Tally::new(&quality, vec!["bars.csv".into()]);
        let one = |(at, text): (usize, &&str)| {
            let place = Place { file: 0, line: at as u64 + 2 };
            local
                .settle(parse(text).unwrap(), text, place, &mut tally)
                .map(|stamp| stamp.map(|stamp| stamp.form.write(stamp.time)))
                .map_err(|error| error.to_string())
        };
        texts.iter().enumerate().map(one).collect()
    }

    #[test]
    fn summer_and_winter_by_hand() {
        let told = settle(
            "America/New_York",
            0,
            &[
                "2024-01-02 09:30:00",
                "2024-07-01 09:30",
                "2024-07-02",
                "2024-07-02T13:30:00Z",
                "1720000000",
            ],
        );
        let told: Vec<_> = told.into_iter().map(|t| t.unwrap().unwrap()).collect();
        let expected = [
            "2024-01-02T14:30:00Z",
            "2024-07-01T13:30:00Z",
            // Midnight there.
            "2024-07-02",
            "2024-07-02T13:30:00Z",
            "2024-07-03T09:46:40Z",
        ];
        assert_eq!(told, expected);
        let half = settle("Asia/Kolkata", 0, &["2024-01-02 00:00:00.250"]);
        assert_eq!(half[0].as_ref().unwrap().as_deref(), Some("2024-01-01T18:30:00.250Z"));
        let error = named("America/NewYork").unwrap_err();
        assert!(error.help.unwrap().contains("is `America/New_York` meant?"));
    }

    #[test]
    fn an_hour_that_is_skipped_or_doubled_is_a_fault() {
        let spring = ["2024-03-10 01:59:00", "2024-03-10 02:30:00", "2024-03-10 03:00:00"];
        let told = settle("America/New_York", 0, &spring);
        let error = told[1].as_ref().unwrap_err();
        assert_eq!(
            error,
            "bars.csv:3: `2024-03-10 02:30:00` does not exist in America/New_York: clocks go forward"
        );
        let told = settle("America/New_York", 1, &spring);
        assert_eq!(told[1], Ok(None));
        assert_eq!(told[2].as_ref().unwrap().as_deref(), Some("2024-03-10T07:00:00Z"));
        let autumn = ["2024-11-03 01:30:00", "2024-11-03 01:00:00", "2024-11-03 01:30:00"];
        assert!(settle("America/New_York", 0, &autumn)[0].as_ref().unwrap_err().contains("twice"));
        // The first is of summer time; what would go back is of winter time.
        let told: Vec<_> = settle("America/New_York", 3, &autumn)
            .into_iter()
            .map(|t| t.unwrap().unwrap())
            .collect();
        let expected = ["2024-11-03T05:30:00Z", "2024-11-03T06:00:00Z", "2024-11-03T06:30:00Z"];
        assert_eq!(told, expected);
    }

    #[test]
    fn days_stay_days_and_do_not_mix_with_times() {
        let told = settle("Europe/London", 0, &["2024-07-01", "2024-07-02", "2024-07-03 09:00"]);
        assert_eq!(told[1].as_ref().unwrap().as_deref(), Some("2024-07-02"));
        assert!(told[2].as_ref().unwrap_err().contains("the first stamp has none"));
    }
}
