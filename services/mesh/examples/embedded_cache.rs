//! A replicated cache inside a program: three nodes over real QUIC, here in one process, on loopback.

use std::{error::Error, sync::Arc, time::Duration};

use mesh::{
    Config, GetOptions, Lookup, NoObserver, Node, NodeId, Readiness, WriteOptions,
    transport::{ClusterSecret, Credentials, QuicConfig, QuicTransport},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut nodes, mut seeds) = (Vec::new(), Vec::new());
    for name in ["one", "two", "three"] {
        let credentials = Credentials::Secret(ClusterSecret::new("the secret that all nodes share"));
        let quic = QuicConfig::new(NodeId::from_name(name), "127.0.0.1:0".parse()?, credentials);
        let transport = QuicTransport::new(quic)?;
        let address = transport.local_addr().to_string();
        let config = Config { name: name.to_owned(), seeds: seeds.clone(), ..Config::new(&address) };
        nodes.push(Node::start(config, Arc::new(transport), Arc::new(NoObserver))?);
        seeds.push(address);
    }
    while !nodes.iter().all(|node| node.readiness() == Readiness::Ready) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Acknowledged when two of the three have it.
    nodes[0].set("greeting".into(), "hello".into(), WriteOptions::default()).await?;
    let found = nodes[2].get(&"greeting".into(), GetOptions::default()).await?;
    let (Lookup::Local(hit) | Lookup::Remote(hit)) = found else { return Err("nobody has it".into()) };
    println!("{}", String::from_utf8_lossy(&hit.value));
    Ok(())
}
