use std::fmt;

/// What became of a write that carried a [`Receipt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The kernel has taken every byte. (That is not the peer: only a reply of the peer says that.)
    Sent,
    /// The connection ended, or never took the write, after the kernel had taken this many of its bytes.
    Failed {
        /// How many of the write's bytes the kernel had taken.
        sent: usize,
    },
}

/// A question to a write, answered exactly once: was it handed to the kernel whole?
///
/// The answer is a call of the closure, on the reactor's thread where the reactor has seen the write, else
/// on the thread that drops the receipt (a write to a full mailbox or a stopped server). It must not
/// block: it runs between two steps of the reactor. A panic in it is caught and logged.
///
/// ```
/// use std::sync::mpsc;
/// use corelane::{Delivery, Receipt};
///
/// let (answer, answers) = mpsc::channel();
/// let receipt = Receipt::new(move |delivery| answer.send(delivery).unwrap());
/// drop(receipt); // never handed to a connection
/// assert_eq!(answers.recv(), Ok(Delivery::Failed { sent: 0 }));
/// ```
pub struct Receipt(Option<Answer>);

type Answer = Box<dyn FnOnce(Delivery) + Send>;

impl Receipt {
    /// A receipt that is answered by a call of `answer`.
    pub fn new(answer: impl FnOnce(Delivery) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub(crate) fn answer(mut self, delivery: Delivery) {
        self.take_and_answer(delivery);
    }

    fn take_and_answer(&mut self, delivery: Delivery) {
        if let Some(answer) = self.0.take() {
            answer(delivery);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // It may be dropped anywhere, even while another panic unwinds: here a panic must end.
        let answer = || self.take_and_answer(Delivery::Failed { sent: 0 });
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(answer)).is_err() {
            tracing::error!("the answer of a receipt panicked");
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}
