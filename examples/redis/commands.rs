//! The commands: their names, how many arguments they take, where they are carried out; and those that are
//! about keys, carried out on a store.

use crate::protocol::{Args, integer};
use crate::reply::{Reply, decimal};
use crate::store::{Expiry, Millis, Store, Value};

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// The name as [`code`] has it.
    code: u64,
    /// How many words, its name among them; the least number if negative. As redis counts.
    pub(crate) arity: i32,
    pub(crate) place: Place,
    /// Whether it may need more memory.
    pub(crate) grows: bool,
    pub(crate) run: Run,
}

/// What a command may make at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a value: as large as one that is sent whole.
    pub(crate) value: usize,
    /// Bytes of a reply.
    pub(crate) reply: usize,
}

/// Where a command is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where its connection is.
    Connection,
    /// Where the key is that is its first argument.
    Key,
    /// Where each of its keys is; an argument out of so many is one.
    Keys(usize),
    /// On every reactor.
    Everywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Get,
    Set,
    Incr,
    IncrBy,
    Append,
    Expire,
    Ttl,
    Del,
    Exists,
    Mget,
    Mset,
    Keys,
    Dbsize,
    Flushdb,
    Publish,
    Ping,
    Echo,
    Subscribe,
    Unsubscribe,
    Hello,
    Client,
    Command,
    Config,
    Reset,
    Quit,
}

const fn command(name: &'static str, arity: i32, place: Place, run: Run) -> Command {
    Command { name, code: code(name.as_bytes()), arity, place, grows: false, run }
}

const fn growing(name: &'static str, arity: i32, place: Place, run: Run) -> Command {
    Command { name, code: code(name.as_bytes()), arity, place, grows: true, run }
}

/// A name as one number whatever its case, five bits for each letter: what is compared for every request. 0 for
/// what cannot be one of the names below.
#[inline]
const fn code(name: &[u8]) -> u64 {
    let (mut code, mut at) = (0, 0);
    while at < name.len() {
        if at == 12 || !name[at].is_ascii_alphabetic() {
            return 0;
        }
        code = code << 5 | (name[at] & 0x1f) as u64;
        at += 1;
    }
    code
}

/// Looked through from the front: what comes often comes first.
pub(crate) static COMMANDS: [Command; 25] = [
    command("get", 2, Place::Key, Run::Get),
    growing("set", -3, Place::Key, Run::Set),
    growing("incr", 2, Place::Key, Run::Incr),
    command("del", -2, Place::Keys(1), Run::Del),
    command("mget", -2, Place::Keys(1), Run::Mget),
    growing("mset", -3, Place::Keys(2), Run::Mset),
    command("exists", -2, Place::Keys(1), Run::Exists),
    growing("incrby", 3, Place::Key, Run::IncrBy),
    growing("append", 3, Place::Key, Run::Append),
    command("expire", -3, Place::Key, Run::Expire),
    command("ttl", 2, Place::Key, Run::Ttl),
    command("publish", 3, Place::Everywhere, Run::Publish),
    command("keys", 2, Place::Everywhere, Run::Keys),
    command("dbsize", 1, Place::Everywhere, Run::Dbsize),
    command("flushdb", -1, Place::Everywhere, Run::Flushdb),
    command("ping", -1, Place::Connection, Run::Ping),
    command("echo", 2, Place::Connection, Run::Echo),
    command("subscribe", -2, Place::Connection, Run::Subscribe),
    command("unsubscribe", -1, Place::Connection, Run::Unsubscribe),
    command("hello", -1, Place::Connection, Run::Hello),
    command("client", -2, Place::Connection, Run::Client),
    command("command", -1, Place::Connection, Run::Command),
    command("config", -2, Place::Connection, Run::Config),
    command("reset", 1, Place::Connection, Run::Reset),
    command("quit", -1, Place::Connection, Run::Quit),
];

impl Command {
    #[inline]
    pub(crate) fn find(name: &[u8]) -> Option<&'static Self> {
        let code = code(name);
        COMMANDS.iter().find(|command| command.code == code)
    }

    #[inline]
    pub(crate) fn accepts(&self, words: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= wanted } else { words == wanted }
    }

    /// Carries out a command about keys. Of one whose keys are on several reactors these are the words that
    /// concern this one, and `out` is what it has to say about them.
    pub(crate) fn execute(
        &self,
        store: &mut Store,
        limits: Limits,
        args: Args<'_>,
        is_resp3: bool,
        out: &mut Reply,
    ) {
        if self.grows && !store.has_room(args.from(1).map(<[u8]>::len).sum()) {
            return out.error("OOM command not allowed when used memory > 'maxmemory'.");
        }
        match self.run {
            Run::Get => get(store, args.at(1), is_resp3, out),
            Run::Set => set(store, args, is_resp3, out),
            Run::Incr => increment(store, args.at(1), 1, out),
            Run::IncrBy => match integer(args.at(2)) {
                Some(by) => increment(store, args.at(1), by, out),
                None => out.error(NOT_A_NUMBER),
            },
            Run::Append => append(store, limits, args, out),
            Run::Expire => expire(store, args, out),
            Run::Ttl => out.integer(match store.left(args.at(1)) {
                None => -2,
                Some(None) => -1,
                Some(Some(millis)) => (millis.saturating_add(500) / 1000) as i64,
            }),
            Run::Del => out.integer(args.from(1).filter(|key| store.remove(key)).count() as i64),
            Run::Exists => out.integer(args.from(1).filter(|key| store.contains(key)).count() as i64),
            Run::Mget => {
                list(limits, args.len() - 1, args.from(1), out, |key, out| get(store, key, is_resp3, out));
            }
            Run::Mset => {
                (1..args.len()).step_by(2).for_each(|key| store.set(args.at(key), args.at(key + 1), None));
                out.ok();
            }
            Run::Keys => {
                let keys = || store.keys(args.at(1));
                list(limits, keys().count(), keys(), out, |key, out| out.bulk(key));
            }
            Run::Dbsize => out.integer(store.len() as i64),
            Run::Flushdb => {
                store.clear();
                out.ok();
            }
            _ => out.error("ERR this is not about keys"),
        }
    }
}

const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
pub(crate) const SYNTAX: &str = "ERR syntax error";
pub(crate) const TOO_LARGE: &str = "ERR the reply is larger than --max-output allows";

/// In milliseconds; with a moment of some hundred years added it is still a number.
const MOST_LIFE: i64 = i64::MAX - (1 << 43);

#[inline]
fn get(store: &Store, key: &[u8], is_resp3: bool, out: &mut Reply) {
    match store.get(key) {
        Some(Value::Small(bytes)) => out.bulk(bytes),
        Some(Value::Large(bytes, _)) => out.shared_bulk(bytes),
        None => out.null(is_resp3),
    }
}

#[inline]
fn set(store: &mut Store, args: Args<'_>, is_resp3: bool, out: &mut Reply) {
    let (key, value) = (args.at(1), args.at(2));
    if args.len() == 3 {
        store.set(key, value, None);
        return out.ok();
    }
    let options = match SetOptions::parse(args) {
        Ok(options) => options,
        Err(text) => return out.error(text),
    };
    let expiry = match options.life.map(|(life, unit)| life_in_millis(life, unit)) {
        None => None,
        Some(Some(millis)) => store.moment(millis),
        Some(None) => return out.error("ERR invalid expire time in 'set' command"),
    };
    if options.presence.is_some_and(|wanted| store.contains(key) != wanted) {
        return out.null(is_resp3);
    }
    store.set(key, value, expiry);
    out.ok();
}

#[derive(Default)]
struct SetOptions {
    /// Set only if the key is there, or is not.
    presence: Option<bool>,
    /// A time to live, in units of so many milliseconds.
    life: Option<(i64, i64)>,
}

impl SetOptions {
    /// An option may come again; the last one counts.
    fn parse(args: Args<'_>) -> Result<Self, &'static str> {
        let mut options = Self::default();
        let mut time = None;
        let mut words = args.from(3);
        while let Some(word) = words.next() {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("nx") && options.presence.is_none_or(|wanted| !wanted) {
                options.presence = Some(false);
            } else if is("xx") && options.presence.is_none_or(|wanted| wanted) {
                options.presence = Some(true);
            } else if is("ex") && !matches!(time, Some((_, 1))) {
                time = Some((words.next().ok_or(SYNTAX)?, 1000));
            } else if is("px") && !matches!(time, Some((_, 1000))) {
                time = Some((words.next().ok_or(SYNTAX)?, 1));
            } else {
                return Err(SYNTAX);
            }
        }
        // What is wrong with the words is told before what is wrong with the number.
        if let Some((text, unit)) = time {
            options.life = Some((integer(text).ok_or(NOT_A_NUMBER)?, unit));
        }
        Ok(options)
    }
}

/// `None` if that is no time to live.
fn life_in_millis(life: i64, unit: i64) -> Option<i64> {
    life.checked_mul(unit).filter(|millis| *millis > 0 && *millis <= MOST_LIFE)
}

fn increment(store: &mut Store, key: &[u8], by: i64, out: &mut Reply) {
    let old = match store.get(key) {
        Some(value) => integer(value.bytes()),
        None => Some(0),
    };
    let Some(old) = old else { return out.error(NOT_A_NUMBER) };
    let Some(new) = old.checked_add(by) else {
        return out.error("ERR increment or decrement would overflow");
    };
    let mut text = Vec::with_capacity(20);
    decimal(&mut text, new);
    store.update(key, &text);
    out.integer(new);
}

fn append(store: &mut Store, limits: Limits, args: Args<'_>, out: &mut Reply) {
    let (key, more) = (args.at(1), args.at(2));
    let length = store.get(key).map_or(0, |value| value.bytes().len());
    if length + more.len() > limits.value {
        return out.error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    }
    out.integer(store.append(key, more) as i64);
}

fn expire(store: &mut Store, args: Args<'_>, out: &mut Reply) {
    let conditions = match Conditions::parse(args) {
        Ok(conditions) => conditions,
        Err(text) => return out.error(text),
    };
    let Some(seconds) = integer(args.at(2)) else { return out.error(NOT_A_NUMBER) };
    let Some(millis) = seconds.checked_mul(1000).filter(|millis| *millis <= MOST_LIFE) else {
        return out.error("ERR invalid expire time in 'expire' command");
    };
    let key = args.at(1);
    if !store.left(key).is_some_and(|left| conditions.allow(left, millis)) {
        return out.integer(0);
    }
    let was_there = if millis > 0 {
        let expiry: Expiry = store.moment(millis);
        store.set_expiry(key, expiry)
    } else {
        store.remove(key)
    };
    out.integer(was_there.into());
}

/// When EXPIRE may set another time: NX if there is none, XX if there is one, GT and LT if that makes it later
/// or sooner.
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Self, String> {
        let mut given = [false; 4];
        for word in args.from(3) {
            let is = |name: &&str| word.eq_ignore_ascii_case(name.as_bytes());
            match ["nx", "xx", "gt", "lt"].iter().position(is) {
                Some(index) => given[index] = true,
                None => return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(word))),
            }
        }
        let [nx, xx, gt, lt] = given;
        let problem = match () {
            () if nx && (xx || gt || lt) => "NX and XX, GT or LT options",
            () if gt && lt => "GT and LT options",
            () => return Ok(Self { nx, xx, gt, lt }),
        };
        Err(format!("ERR {problem} at the same time are not compatible"))
    }

    /// Of a key that has so many milliseconds left, or for ever.
    fn allow(&self, left: Option<Millis>, new: i64) -> bool {
        match left.and_then(|left| i64::try_from(left).ok()) {
            None => !self.xx && !self.gt,
            Some(left) => !self.nx && (!self.gt || new > left) && (!self.lt || new < left),
        }
    }
}

/// An array of so many items; an error in its place where it gets too large.
pub(crate) fn list<'a>(
    limits: Limits,
    count: usize,
    items: impl Iterator<Item = &'a [u8]>,
    out: &mut Reply,
    write: impl Fn(&[u8], &mut Reply),
) {
    let (start, size) = (out.mark(), out.size());
    out.array(count);
    for item in items {
        write(item, out);
        if out.size() - size > limits.reply {
            out.truncate(start);
            return out.error(TOO_LARGE);
        }
    }
}
