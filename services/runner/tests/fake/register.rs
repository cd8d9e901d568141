//! The keys of the fake mesh: one register each, correct unless told otherwise.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use load::{Proof, Stamp, prove, write_value};

use super::Fault;

/// What a key holds, and what it held before.
#[derive(Clone, Debug, Default)]
struct Register {
    version: u128,
    /// Nothing once it was deleted.
    value: Option<String>,
    expires: Option<Instant>,
    before: Option<(u128, String)>,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Registers {
    keys: HashMap<String, Register>,
    /// Even, so that misbehaving nodes have versions of their own.
    version: u128,
}

impl Registers {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// A version, zero if the key is unknown; and the value, unless there is none.
    pub fn get(
        &self,
        key: &str,
        consistency: &str,
        least: u128,
        fault: Fault,
        sometimes: bool,
    ) -> (u128, Option<String>) {
        let Some(register) = self.keys.get(key) else { return (0, None) };
        let expired = register.expires.is_some_and(|expires| Instant::now() >= expires);
        let version = register.version;
        let value = register.value.clone().filter(|_| !expired || fault == Fault::Outlive);
        let older = register.before.clone().map(|(version, value)| (version, Some(value)));
        let Some(current) = value else {
            let comes_back = older.filter(|_| fault == Fault::Resurrect && register.value.is_none());
            return comes_back.map_or((version, None), |(_, value)| (version + 1, value));
        };
        match fault {
            Fault::Behind if consistency != "quorum" => (0, Some(current)),
            Fault::StaleQuorum if sometimes && consistency == "quorum" => older.unwrap_or((version, Some(current))),
            Fault::ForgetSession if sometimes && consistency == "session" && least > 0 => {
                older.filter(|(version, _)| *version < least).unwrap_or((version, Some(current)))
            }
            Fault::WrongObject if sometimes => {
                let other = self.keys.iter().find(|(other, register)| *other != key && register.value.is_some());
                (version, Some(other.and_then(|(_, register)| register.value.clone()).unwrap_or(current)))
            }
            Fault::Corrupt if sometimes => (version, Some(current.replacen("v:", "w:", 1))),
            Fault::Forge if sometimes => (version, Some(forged(key, &current))),
            Fault::Forget if sometimes => (version, None),
            Fault::Evict if consistency != "quorum" => (0, None),
            Fault::ChangeVersion if sometimes => (version + 1, Some(current)),
            _ => (version, Some(current)),
        }
    }

    /// The version that the write is acknowledged with.
    pub fn set(&mut self, key: &str, value: &str, ttl: Option<Duration>, fault: Fault, sometimes: bool) -> u128 {
        self.version += 2;
        let known = self.keys.contains_key(key);
        let register = self.keys.entry(key.to_owned()).or_default();
        // Of some keys every later write is lost, or chance would decide whether a key's last one is among the lost.
        let doomed = sometimes || (key.ends_with('3') && known);
        if fault == Fault::LoseWrites && doomed {
            if !known {
                self.keys.remove(key);
            }
            return self.version;
        }
        let version = if fault == Fault::Rewind && sometimes { register.version / 2 } else { self.version };
        let before = register.value.take().map(|value| (register.version, value));
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        *register = Register { version, value: Some(value.to_owned()), expires, before };
        version
    }

    pub fn delete(&mut self, key: &str) -> u128 {
        self.version += 2;
        let register = self.keys.entry(key.to_owned()).or_default();
        let before = register.value.take().map(|value| (register.version, value)).or_else(|| register.before.take());
        *register = Register { version: self.version, value: None, expires: None, before };
        self.version
    }
}

/// The same writer's value a million writes later.
fn forged(key: &str, value: &str) -> String {
    let Proof::Genuine(stamp) = prove(value.as_bytes(), key.as_bytes()) else { return value.to_owned() };
    let mut forged = Vec::new();
    write_value(&mut forged, key.as_bytes(), Stamp { seq: stamp.seq + 1_000_000, ..stamp }, 0);
    String::from_utf8(forged).unwrap()
}
