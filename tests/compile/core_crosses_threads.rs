//! A reactor's `Core` stays on its thread.

use corelane::{ConnId, Core};

fn hand_over(core: &mut Core<'_>, id: ConnId) {
    std::thread::scope(|scope| {
        scope.spawn(|| core.close(id));
    });
}

fn main() {}
