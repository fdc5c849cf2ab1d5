//! How much memory a process has in use.

use std::fs;

use anyhow::{Context, Result};

/// The proportional set size of a process in bytes: its resident memory, with what it shares with
/// others counted in part (proc_pid_smaps(5)).
///
/// It holds what the process itself has allocated, not what the kernel keeps for its sockets.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = pss_kib(&text).with_context(|| format!("no `Pss:` in {path}"))?;
    Ok(kib * 1024)
}

fn pss_kib(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_set_size_is_found() {
        let text = "5588-7ffc ---p 00000000 00:00 0    [rollup]\nRss:                1756 kB\n\
                    Pss:                 239 kB\nPss_Dirty:           112 kB\n";
        assert_eq!(pss_kib(text), Some(239));
        assert_eq!(pss_kib("Rss: 1 kB\nPss_Anon: 2 kB\n"), None);
    }

    #[test]
    fn what_this_process_touches_is_resident() {
        let pid = std::process::id();
        let before = resident(pid).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident(pid).unwrap() >= before + (32 << 20));
        drop(block);
    }
}
