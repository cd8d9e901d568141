//! What a package of the binaries needs beside them, made of the same declarations: shell completions and man pages.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use clap::{Arg, ArgMatches, Command, builder::ValueParser};
use clap_complete::Shell;

use crate::{Exit, Mistakes};

/// Hidden flags, for `make share`.
const COMPLETIONS: &str = "completions";
const MAN: &str = "man";

/// The two flags.
pub(crate) fn flags() -> [Arg; 2] {
    [COMPLETIONS, MAN].map(|name| {
        let arg = Arg::new(name).long(name).hide(true).exclusive(true);
        arg.value_parser(ValueParser::os_string()).value_name(if name == MAN { "FOLDER" } else { "SHELL" })
    })
}

/// What one of the flags asks for: completions on standard output, man pages in a folder.
pub(crate) fn asked(command: &Command, raw: &ArgMatches) -> Option<Exit> {
    let value = |name: &str| raw.get_one::<OsString>(name);
    let made = value(COMPLETIONS).map(|shell| completions(command, shell));
    Some(made.or_else(|| value(MAN).map(|folder| man_pages(command, folder)))?.map_or_else(Exit::Mistakes, Exit::Asked))
}

fn completions(command: &Command, shell: &OsStr) -> Result<String, Mistakes> {
    let name = shell.to_string_lossy();
    let shell: Shell =
        name.parse().map_err(|_| refused(COMPLETIONS, &name, "expected bash, elvish, fish, powershell or zsh"))?;
    let mut out = Vec::new();
    let mut command = command.clone();
    let binary = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, binary, &mut out);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// One page of the binary, and one of each of its commands.
fn man_pages(command: &Command, folder: &OsStr) -> Result<String, Mistakes> {
    let path = Path::new(folder);
    let made = fs::create_dir_all(path).and_then(|()| clap_mangen::generate_to(command.clone(), path));
    made.map_err(|error| refused(MAN, &folder.to_string_lossy(), &format!("expected a folder to write to: {error}")))?;
    Ok(String::new())
}

fn refused(name: &str, value: &str, expected: &str) -> Mistakes {
    let mut mistakes = Mistakes::default();
    mistakes.refuse(name, value, expected);
    mistakes
}
