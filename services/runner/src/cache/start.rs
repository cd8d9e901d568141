//! Before the first request: every target must answer, take requests, and be what the others are: one Redis server, nodes of one Redis
//! Cluster, or memcached servers.

use std::sync::Arc;

use load::all_of;
use tokio::time::{Duration, Instant, sleep};

use super::{
    control::{Info, info, replicas, slot_ranges, why_not_ready},
    servers::Servers,
    slots::SlotRange,
};
use crate::{
    http::TargetHealth,
    settings::{Login, Scheme, TargetSettings, TargetUrl},
};

/// Targets that give no answer within this time are unreachable.
const REACHABLE_WITHIN: Duration = Duration::from_millis(3500);

const POLL: Duration = Duration::from_millis(100);

/// The servers of the run, and what they are called. Of a cluster these are all its masters, then all replicas.
///
/// # Errors
/// Which targets do not answer or cannot be loaded, and why.
pub(super) async fn find(settings: &TargetSettings) -> Result<(Arc<Servers>, Vec<String>), String> {
    let targets: Vec<_> = settings.targets.iter().map(|target| with_login(target, settings)).collect();
    let health: Vec<_> = targets.iter().map(|target| TargetHealth::new(target.clone(), true)).collect();
    let infos = wait_ready(&health, settings).await?;
    if targets[0].scheme == Scheme::Memcached {
        return Ok((Arc::new(Servers::new(&targets, None)), names(&targets)));
    }
    let is_cluster = |info: &Info| info.get("cluster_enabled").is_some_and(|enabled| enabled == "1");
    for (target, info) in targets.iter().zip(&infos) {
        let role = info.get("role").map_or("", String::as_str);
        if !is_cluster(info) && role == "slave" {
            return Err(format!("TARGETS: {} is a replica, which takes no writes: name its master", target.url()));
        }
        if !is_cluster(info) && targets.len() > 1 {
            let url = target.url();
            return Err(format!(
                "TARGETS: {url} is no node of a Redis Cluster: name it alone, or nodes of one cluster"
            ));
        }
    }
    if !is_cluster(&infos[0]) {
        return Ok((Arc::new(Servers::new(&targets, None)), names(&targets)));
    }
    let failed = |reason| format!("TARGETS: {}: {reason}", targets[0].url());
    let ranges = slot_ranges(&health[0]).await.map_err(failed)?;
    let all = members(&ranges, &replicas(&health[0]).await.map_err(failed)?, &targets[0]);
    Ok((Arc::new(Servers::new(&all, Some(&ranges))), names(&all)))
}

fn with_login(target: &TargetUrl, settings: &TargetSettings) -> TargetUrl {
    let TargetSettings { target_user: user, target_password: password, .. } = settings;
    let general = || {
        let login = Login { user: user.clone(), password: password.clone() };
        (target.scheme == Scheme::Redis && !password.is_empty()).then_some(login)
    };
    TargetUrl { login: target.login.clone().or_else(general), ..target.clone() }
}

fn names(targets: &[TargetUrl]) -> Vec<String> {
    targets.iter().map(TargetUrl::url).collect()
}

/// The masters in the order of their slots, then the replicas.
fn members(ranges: &[SlotRange], replicas: &[String], like: &TargetUrl) -> Vec<TargetUrl> {
    let mut ranges: Vec<_> = ranges.iter().collect();
    ranges.sort_by_key(|range| range.from);
    let masters = ranges.iter().map(|range| &range.master);
    let mut all: Vec<TargetUrl> = Vec::new();
    for authority in masters.chain(replicas) {
        if !all.iter().any(|known| known.authority == *authority) {
            all.push(TargetUrl { authority: authority.clone(), ..like.clone() });
        }
    }
    all
}

/// Waits until all take requests, and says what they say about themselves.
async fn wait_ready(servers: &[TargetHealth], settings: &TargetSettings) -> Result<Vec<Info>, String> {
    let began = Instant::now();
    loop {
        let found = all_of(servers.iter().map(info)).await;
        let whys = found.iter().map(|found| found.as_ref().map_or_else(|reason| Some(reason.clone()), why_not_ready));
        let whys: Vec<_> = whys.collect();
        if whys.iter().all(Option::is_none) {
            return Ok(found.into_iter().flatten().collect());
        }
        let is_silent = found.iter().any(Result::is_err);
        let within = if is_silent { settings.ready_within.min(REACHABLE_WITHIN) } else { settings.ready_within };
        if began.elapsed() >= within {
            let mut message = match is_silent {
                true => "TARGETS: not reachable".to_owned(),
                false => format!("TARGETS: not ready within READY_WITHIN={:?}", settings.ready_within),
            };
            for (server, why) in servers.iter().zip(whys) {
                why.iter().for_each(|why| message.push_str(&format!("\n  {}: {why}", server.target.url())));
            }
            return Err(message);
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn masters_come_first_and_each_server_once() {
        let range = |from, master: &str| SlotRange { from, to: from, master: master.to_owned() };
        let ranges = [range(9, "b:2"), range(0, "a:1"), range(5, "b:2")];
        let replicas = ["c:3", "d:4"].map(str::to_owned);
        let all = members(&ranges, &replicas, &"redis://:secret@x:1".parse().unwrap());
        assert_eq!(names(&all), ["redis://a:1", "redis://b:2", "redis://c:3", "redis://d:4"]);
        assert!(all.iter().all(|target| target.login.is_some()));
    }
}
