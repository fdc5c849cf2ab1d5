//! Connections steered to the listener of the CPU they arrived on.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

/// Makes the kernel pick listener i of `listener`'s SO_REUSEPORT group for what arrives on CPU
/// `cpus[i]`.
///
/// The kernel numbers the listeners of a group in the order in which they began to listen.
pub(crate) fn by_cpu(listener: &TcpListener, cpus: &[usize]) -> io::Result<()> {
    let mut program = program(cpus);
    let too_many = |_| io::Error::new(io::ErrorKind::InvalidInput, "too many listeners to steer between");
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(too_many)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer and the length describe `filter`, which, like the program it points to,
    // outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program(cpus: &[usize]) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let op = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };

    let mut program = vec![op(LOAD, (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32, 0)];
    for (index, &cpu) in cpus.iter().enumerate() {
        program.push(op(JUMP_IF_EQUAL, cpu as u32, 1));
        program.push(op(RETURN, index as u32, 0));
    }
    // No such listener: for a CPU without a thread the kernel falls back to its hash.
    program.push(op(RETURN, u32::MAX, 0));
    program
}
