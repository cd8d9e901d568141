//! docs/result.schema.json is made of the types of a result, and every result keeps to it. `WRITE_SCHEMA=1 cargo test -p load schema`
//! writes it.

#![allow(clippy::unwrap_used, reason = "tests")]

use boon::{Compiler, Schemas};
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::report::{Report, full_report};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/result.schema.json");

fn made() -> Value {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Report>();
    let mut schema = schema.to_value();
    schema["title"] = "result.json of a Mesh Bench run".into();
    schema["properties"]["schema"]["const"] = crate::report::SCHEMA.into();
    schema
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let wanted = format!("{}\n", serde_json::to_string_pretty(&made()).unwrap());
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        std::fs::write(PATH, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(PATH).unwrap();
    assert!(found == wanted, "docs/result.schema.json is stale: WRITE_SCHEMA=1 cargo test -p load schema");
}

#[test]
fn a_result_in_which_everything_has_happened_keeps_to_the_schema() {
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.add_resource("result", made()).unwrap();
    let schema = compiler.compile("result", &mut schemas).unwrap();
    let wrong = |result: &Value| schemas.validate(result, schema).map_err(|error| error.to_string()).err();
    let mut result = serde_json::to_value(full_report()).unwrap();
    assert_eq!(wrong(&result), None);
    result["totals"]["total"] = "many".into();
    assert!(wrong(&result).is_some_and(|what| what.contains("/totals/total")), "the schema allows anything");
    result["totals"]["total"] = 1.into();
    result.as_object_mut().unwrap().remove("verdict");
    assert!(wrong(&result).is_some_and(|what| what.contains("verdict")));
}
