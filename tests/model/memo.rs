//! Steps of the real types, taken once for each projected state and input, and looked up from then on.

use std::{cell::RefCell, collections::HashMap, hash::Hash};

/// What was asked before, in one thread.
pub struct Memo<Q, A>(RefCell<HashMap<Q, A>>);

impl<Q: Copy + Eq + Hash, A: Clone> Memo<Q, A> {
    pub fn new() -> Self {
        Self(RefCell::default())
    }

    /// The answer, worked out if it is asked for the first time.
    pub fn answer(&self, question: Q, work_out: impl FnOnce() -> A) -> A {
        if let Some(known) = self.0.borrow().get(&question) {
            return known.clone();
        }
        let answer = work_out();
        self.0.borrow_mut().insert(question, answer.clone());
        answer
    }
}
