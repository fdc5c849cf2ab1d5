//! The layer's own replies: to what it cannot serve.

use super::connection::{Connection, Reading, conn, part};
use super::layer::Layer;
use super::{Problem, Responder, date, encode};
use crate::Core;

/// Answers a request that cannot be served, behind the replies that are owed, and has the connection closed behind
/// that. The exchange that this costs the service, if it had one.
pub(super) fn refuse<T: Default + 'static>(
    layer: &mut Layer<T>,
    core: &mut Core<'_>,
    index: usize,
    problem: Problem,
) -> Option<(Responder, T)> {
    let now = layer.now;
    let connection = &mut layer.connections[index];
    let is_discarding = connection.flags.has(conn::DISCARD);
    let is_body = matches!(connection.reading, Reading::Body(_));
    connection.flags.set(conn::LAST);
    connection.flags.clear(conn::HEAD);
    connection.reading = Reading::Head { seen: 0 };
    if is_body && is_discarding {
        connection.flags.set(conn::CLOSING);
        return None;
    }
    if !is_body {
        connection.push(part::INTERNAL, now, &mut layer.spare);
        reply(layer, core, index, problem);
        return None;
    }
    let responder = connection.responder(index, connection.queue.len().saturating_sub(1));
    let entry = connection.queue.back_mut()?;
    entry.flags.clear(part::BODY | part::EXPECTS);
    if entry.flags.has(part::DONE) {
        entry.flags.set(part::CLOSE);
        return None;
    }
    let state = std::mem::take(&mut entry.state);
    if entry.flags.has(part::BEGUN) {
        // Without its end, so that the client sees that it is not whole.
        entry.flags.set(part::DONE | part::CLOSE | part::INTERNAL | part::CUT);
        layer.complete(core, index);
    } else {
        entry.flags.set(part::INTERNAL);
        reply(layer, core, index, problem);
    }
    Some((responder, state))
}

/// Answers the last request in the queue.
fn reply<T: Default + 'static>(layer: &mut Layer<T>, core: &mut Core<'_>, index: usize, problem: Problem) {
    layer.select(core, index);
    let status = problem.status();
    let Layer { connections, out, date, config, .. } = layer;
    let connection: &mut Connection<T> = &mut connections[index];
    let is_first = connection.queue.len() == 1;
    let Some(entry) = connection.queue.back_mut() else { return };
    let out = match entry.held.fresh() {
        Some(held) if !is_first => held,
        _ => out,
    };
    encode::status_line(out, status);
    out.extend_from_slice(if config.date { date.and_length() } else { date::LENGTH });
    out.extend_from_slice(b"0\r\nconnection: close\r\n\r\n");
    entry.status = status.as_u16();
    entry.flags.set(part::BEGUN | part::DONE | part::CLOSE);
    layer.complete(core, index);
}
