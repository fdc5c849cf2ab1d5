//! Commands about the connection and the server, and what is said of requests that cannot be served.

use crate::commands::{COMMANDS, Command, Limits, Place, Run, SYNTAX, list};
use crate::protocol::{Args, integer};
use crate::reply::Reply;
use crate::service::Settings;
use crate::session::Session;
use crate::store::matches;

/// Clients look at it to know what they may use.
const VERSION: &str = "7.0.0";
/// Bytes of the name that a client gives itself.
const MOST_NAME: usize = 1024;
/// As much of an unknown request is repeated to whoever sent it.
const MOST_REPEATED: usize = 128;

pub(crate) fn wrong_number(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

pub(crate) fn only_listening(command: &Command, args: Args<'_>) -> String {
    let mut name = command.name.to_owned();
    if let (Run::Client | Run::Command | Run::Config, Some(what)) = (command.run, args.from(1).next()) {
        name = format!("{name}|{}", String::from_utf8_lossy(&what.to_ascii_lowercase()));
    }
    format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    )
}

#[cold]
pub(crate) fn unknown(args: Args<'_>) -> Vec<u8> {
    let mut words = Vec::new();
    for word in args.from(1) {
        if words.len() >= MOST_REPEATED {
            break;
        }
        let room = MOST_REPEATED - words.len();
        words.push(b'\'');
        words.extend_from_slice(printed(word, room));
        words.extend_from_slice(b"' ");
    }
    let name = printed(args.at(0), MOST_REPEATED);
    [b"ERR unknown command '", name, b"', with args beginning with: ", &words].concat()
}

/// What redis's printf shows of a word.
fn printed(word: &[u8], most: usize) -> &[u8] {
    let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len());
    &word[..end.min(most)]
}

pub(crate) fn answer(command: &Command, args: Args<'_>, session: &mut Session, settings: &Settings) {
    match command.run {
        Run::Ping => ping(args, session),
        Run::Echo => session.out().bulk(args.at(1)),
        Run::Hello => hello(args, session),
        Run::Client => client(args, session),
        Run::Config => config(args, session, settings),
        Run::Command => describe(args, session, settings.limits),
        Run::Quit => {
            session.out().ok();
            session.is_closing = true;
        }
        _ => session.out().error(SYNTAX),
    }
}

fn ping(args: Args<'_>, session: &mut Session) {
    let is_listening = session.is_listening_only();
    let out = session.out();
    match args.from(1).next() {
        _ if args.len() > 2 => out.error(wrong_number("ping")),
        text if is_listening => {
            out.array(2);
            out.bulk(b"pong");
            out.bulk(text.unwrap_or_default());
        }
        Some(text) => out.bulk(text),
        None => out.simple(b"PONG"),
    }
}

fn hello(args: Args<'_>, session: &mut Session) {
    let mut is_resp3 = session.is_resp3;
    if args.len() > 1 {
        is_resp3 = match integer(args.at(1)) {
            Some(2) => false,
            Some(3) => true,
            Some(_) => return session.out().error("NOPROTO unsupported protocol version"),
            None => {
                return session.out().error("ERR Protocol version is not an integer or out of range");
            }
        };
    }
    let mut at = 2;
    while at < args.len() {
        let (option, left) = (args.at(at), args.len() - at - 1);
        if option.eq_ignore_ascii_case(b"auth") && left >= 2 {
            // As with redis where none is set: the default user has any password, and there is no other.
            if args.at(at + 1) != b"default" {
                let text = "WRONGPASS invalid username-password pair or user is disabled.";
                return session.out().error(text);
            }
            at += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && left >= 1 {
            if !set_name(args.at(at + 1), session) {
                return;
            }
            at += 2;
        } else {
            let option = String::from_utf8_lossy(option);
            return session.out().error(format!("ERR Syntax error in HELLO option '{option}'"));
        }
    }
    session.is_resp3 = is_resp3;
    let number = session.number;
    let out = session.out();
    out.map(7, is_resp3);
    let text = |out: &mut Reply, name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    text(out, "server", "corelane");
    text(out, "version", VERSION);
    out.bulk(b"proto");
    out.integer(if is_resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(number as i64);
    text(out, "mode", "standalone");
    text(out, "role", "master");
    out.bulk(b"modules");
    out.array(0);
}

/// Whether it is a name; if not, the client has been told.
fn set_name(name: &[u8], session: &mut Session) -> bool {
    if !name.iter().all(u8::is_ascii_graphic) {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        session.out().error(text);
        return false;
    }
    if name.len() > MOST_NAME {
        session.out().error(format!("ERR Client names cannot be longer than {MOST_NAME} bytes."));
        return false;
    }
    session.name = name.to_vec();
    true
}

fn client(args: Args<'_>, session: &mut Session) {
    let what = args.at(1).to_ascii_lowercase();
    match (&what[..], args.len()) {
        (b"setname", 3) => {
            if set_name(args.at(2), session) {
                session.out().ok();
            }
        }
        (b"getname", 2) if session.name.is_empty() => {
            let is_resp3 = session.is_resp3;
            session.out().null(is_resp3);
        }
        (b"getname", 2) => {
            let name = session.name.clone();
            session.out().bulk(&name);
        }
        (b"id", 2) => {
            let number = session.number;
            session.out().integer(number as i64);
        }
        // What library a client is made with is of no use here, but no error either.
        (b"setinfo", 4) => session.out().ok(),
        _ => subcommand_error("client", &["setname", "getname", "id", "setinfo"], args, session.out()),
    }
}

fn subcommand_error(command: &str, known: &[&str], args: Args<'_>, out: &mut Reply) {
    let what = args.at(1);
    match known.iter().find(|name| name.as_bytes().eq_ignore_ascii_case(what)) {
        Some(name) => out.error(wrong_number(&format!("{command}|{name}"))),
        None => {
            let help = command.to_ascii_uppercase();
            let tail = format!("'. Try {help} HELP.");
            out.error([b"ERR unknown subcommand '", printed(what, MOST_REPEATED), tail.as_bytes()].concat());
        }
    }
}

fn config(args: Args<'_>, session: &mut Session, settings: &Settings) {
    if !args.at(1).eq_ignore_ascii_case(b"get") || args.len() < 3 {
        return subcommand_error("config", &["get"], args, session.out());
    }
    let values = [
        ("appendonly", "no".to_owned()),
        ("maxmemory", settings.max_memory.to_string()),
        ("proto-max-bulk-len", settings.max_request.to_string()),
        ("save", String::new()),
    ];
    let is_wanted =
        |name: &str| args.from(2).any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
    let wanted: Vec<_> = values.iter().filter(|(name, _)| is_wanted(name)).collect();
    let is_resp3 = session.is_resp3;
    let out = session.out();
    out.map(wanted.len(), is_resp3);
    for (name, value) in wanted {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
}

/// COMMAND and what redis-cli asks of it. There are no docs to tell.
fn describe(args: Args<'_>, session: &mut Session, limits: Limits) {
    let is_resp3 = session.is_resp3;
    let out = session.out();
    if args.len() == 1 {
        out.array(COMMANDS.len());
        return COMMANDS.iter().for_each(|command| describe_one(command, is_resp3, out));
    }
    match &args.at(1).to_ascii_lowercase()[..] {
        b"count" if args.len() == 2 => out.integer(COMMANDS.len() as i64),
        b"docs" => out.map(0, is_resp3),
        b"list" if args.len() == 2 => {
            out.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| out.bulk(command.name.as_bytes()));
        }
        b"info" => list(limits, args.len() - 2, args.from(2), out, |name, out| match Command::find(name) {
            Some(command) => describe_one(command, is_resp3, out),
            None => out.null(is_resp3),
        }),
        _ => subcommand_error("command", &["count", "list"], args, out),
    }
}

/// Name, arity, flags, first key, last key, step; categories, hints, keys and subcommands are left empty.
fn describe_one(command: &Command, is_resp3: bool, out: &mut Reply) {
    let (first, last, step) = match command.place {
        Place::Key => (1, 1, 1),
        Place::Keys(step) => (1, -1, step as i64),
        Place::Everywhere | Place::Connection => (0, 0, 0),
    };
    out.array(10);
    out.bulk(command.name.as_bytes());
    out.integer(command.arity.into());
    out.set(command.grows.into(), is_resp3);
    if command.grows {
        out.simple(b"denyoom");
    }
    [first, last, step].into_iter().for_each(|number| out.integer(number));
    (0..4).for_each(|_| out.set(0, is_resp3));
}
