//! Which socket of a `SO_REUSEPORT` group gets a new connection: the one of the CPU that received it.

use std::io;
use std::os::fd::AsFd;

use super::raw;

/// Loads what the ancillary offset names ([socket(7)], `linux/filter.h`).
///
/// [socket(7)]: https://man7.org/linux/man-pages/man7/socket.7.html
const LOAD_CPU: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;

fn instruction(code: u32, jump_true: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: 0, k }
}

/// Gives connections that arrive on `cpus[i]` to the group's i-th socket, in the order in which the
/// sockets began to listen; those that arrive on another CPU go to CPU modulo sockets.
///
/// Set on one socket of the group it holds for all (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
pub(crate) fn steer_by_cpu(socket: &impl AsFd, cpus: &[usize]) -> io::Result<()> {
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W};
    let mut program = vec![instruction(BPF_LD | BPF_W | BPF_ABS, 0, LOAD_CPU)];
    for (index, &cpu) in cpus.iter().enumerate() {
        // Equal: fall through to the return. Not equal: jump over it.
        let mut compare = instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, cpu as u32);
        compare.jf = 1;
        program.push(compare);
        program.push(instruction(BPF_RET | BPF_K, 0, index as u32));
    }
    program.push(instruction(BPF_ALU | BPF_MOD | BPF_K, 0, cpus.len() as u32));
    program.push(instruction(BPF_RET | BPF_A, 0, 0));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    raw::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}
