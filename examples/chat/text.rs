use crate::message::Name;

pub(crate) const HELP: &str = "\
-- /join ROOM  go to a room, and leave the one you are in
-- /leave      leave it
-- /who        who is in it
-- /rooms      which rooms there are
-- /nick NAME  change your nickname
-- /me ...     say what you do
-- /quit       go
-- All other lines are said in your room; begin one with // to say something that begins with /.
";

/// How many names a listing shows.
const LISTED: usize = 100;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Nothing,
    Say(&'a str),
    Me(&'a str),
    Join(&'a str),
    Leave,
    Nick(&'a str),
    Who,
    Rooms,
    Help,
    Quit,
    Unknown(&'a str),
}

impl<'a> Command<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let text = text.trim_end();
        let Some(command) = text.strip_prefix('/') else {
            return if text.is_empty() { Self::Nothing } else { Self::Say(text) };
        };
        if command.starts_with('/') {
            return Self::Say(command);
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match word {
            "me" => Self::Me(rest),
            "join" => Self::Join(rest),
            "leave" => Self::Leave,
            "nick" => Self::Nick(rest),
            "who" => Self::Who,
            "rooms" => Self::Rooms,
            "help" => Self::Help,
            "quit" => Self::Quit,
            _ => Self::Unknown(word),
        }
    }
}

/// A line as it may be shown on anybody's terminal: what is not UTF-8, and control characters, with which one
/// could move the cursor there, are replaced.
pub(crate) fn readable(line: &[u8]) -> String {
    let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(line).chars().map(shown).collect()
}

/// A name of a member or a room: letters, digits, `-` and `_`, of which the first is a letter, so that nobody
/// can be mistaken for the server, whose own lines begin with `--`.
pub(crate) fn name(text: &str, longest: usize) -> Option<Name> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_name = text.len() <= longest
        && text.bytes().all(is_allowed)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
    is_name.then(|| text.into())
}

/// Names in one line, sorted; of very many, the first.
pub(crate) fn listing(mut names: Vec<String>) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let listed = names.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}
