//! Maildrops that each have a sign, as `forecast` and `verify` print them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uidl_keep::forecast::ForecastSign;
use uidl_keep::text::on_one_line;

/// What was found of a maildrop.
pub trait Signed {
    /// Its sign.
    fn sign(&self) -> ForecastSign;

    /// How many captured messages are missing.
    fn missing(&self) -> usize;

    /// It in words, which may have line ends.
    fn sentence(&self) -> String;
}

/// What is said of one maildrop, or why nothing can be.
pub struct SignedMaildrop<T> {
    pub user: String,
    pub found: Result<T, String>,
}

impl<T: Signed> SignedMaildrop<T> {
    pub fn sign(&self) -> ForecastSign {
        self.found.as_ref().map_or(ForecastSign::Unknown, Signed::sign)
    }

    /// Sorts them, the worst first.
    pub fn sort(maildrops: &mut [Self]) {
        let missing = |it: &Self| it.found.as_ref().map_or(0, Signed::missing);
        let rank = |it: &Self| (it.sign(), Reverse(missing(it)));
        maildrops.sort_by(|a, b| (rank(a), &a.user).cmp(&(rank(b), &b.user)));
    }

    /// It on one line: `= alice@example.com: 3 of 3 kept`.
    pub fn line(&self) -> String {
        let sentence = match &self.found {
            Ok(found) => found.sentence(),
            Err(why) => format!("could not tell: {why}"),
        };
        let (sign, user) = (self.sign().as_char(), on_one_line(&self.user));
        format!("{sign} {user}: {}", on_one_line(sentence))
    }

    /// It as an object, with what `fields` gives of what was found.
    pub fn json(&self, fields: impl FnOnce(&T) -> Value) -> Value {
        let more = match &self.found {
            Ok(found) => fields(found),
            Err(why) => json!({ "why": on_one_line(why) }),
        };
        let mut object = json!({ "user": self.user, "sign": self.sign().as_char().to_string() });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        object
    }
}

/// How many maildrops there are of each sign.
#[derive(Default)]
pub struct SignCounts(BTreeMap<ForecastSign, usize>);

impl SignCounts {
    pub fn add(&mut self, sign: ForecastSign) {
        *self.0.entry(sign).or_default() += 1;
    }

    pub fn of(&self, sign: ForecastSign) -> usize {
        self.0.get(&sign).copied().unwrap_or_default()
    }

    /// The words before what is said of all messages: `total: 3 maildrops (2 =, ...)`.
    pub fn sentence(&self) -> String {
        let signs = ForecastSign::ALL.map(|sign| format!("{} {}", self.of(sign), sign.as_char()));
        let maildrops: usize = self.0.values().sum();
        format!("total: {maildrops} maildrops ({})", signs.join(", "))
    }

    pub fn json(&self) -> Map<String, Value> {
        let sign = |sign: &ForecastSign| (sign.as_char().to_string(), self.of(*sign).into());
        ForecastSign::ALL.iter().map(sign).collect()
    }
}
