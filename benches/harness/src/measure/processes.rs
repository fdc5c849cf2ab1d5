//! Which processes a server is made of.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// These processes and all that descend from them: a server may have its work done by children (nginx does).
///
/// One whose parent has ended belongs to nobody any more, and is missed.
pub(crate) fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process may end between the listing and the reading.
    let parents = pids.filter_map(|pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parent(&stat)?))
    });
    descend(roots, &parents.collect())
}

/// The CPU time of the children of a process that have ended and been waited for, and of theirs; nothing of a process
/// that is gone. The kernel tells it in ticks, and not at all of a process that ignores SIGCHLD.
pub(crate) fn cpu_of_ended_children(pid: u32) -> Duration {
    let ticks = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| ended_children(&stat));
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks.unwrap_or(0) as f64 / per_second as f64)
}

/// The sixteenth field and the next, in user and in kernel mode.
fn ended_children(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ticks: Vec<u64> = fields.skip(13).take(2).map_while(|ticks| ticks.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum())
}

/// The fourth field; the second is a name in parentheses that may hold anything (proc_pid_stat(5)).
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn descend(roots: &[u32], parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found: Vec<u32> = roots.to_vec();
    found.sort_unstable();
    found.dedup();
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        let children = parents.iter().filter(|(pid, parent)| **parent == of && !found.contains(pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn children_of_children_belong_to_it() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 1), (5, 3), (9, 8)]);
        assert_eq!(descend(&[2], &parents), [2, 3, 5]);
        assert_eq!(descend(&[3, 1], &parents), [1, 3, 2, 4, 5]);
        assert_eq!(descend(&[7], &parents), [7]);
        assert_eq!(parent("7 (a ) b) S 5 7 7 0"), Some(5));
        assert_eq!(ended_children("7 (a ) b) S 5 7 7 0 -1 0 0 0 0 0 40 50 30 4 20 0"), Some(34));
        assert_eq!(ended_children("7 (a) S 5"), None);
    }

    #[test]
    fn a_child_of_this_process_is_found() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let found = with_descendants(&[std::process::id()]);
        assert!(found.contains(&child.id()) && found.contains(&std::process::id()), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
