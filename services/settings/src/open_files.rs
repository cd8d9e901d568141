//! The limit on open files, which the system sets and every binary raises as far as it may.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this process as many open files as the system lets it have; the limit that holds then.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    if is_raised { raised.current } else { limit.current }.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let files = raise_file_limit();
        assert!(files >= 64);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((limit.current, limit.current.unwrap_or(u64::MAX)), (limit.maximum, files));
    }
}
