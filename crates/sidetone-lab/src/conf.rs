//! The configuration of an instance: the templates in `conf/`, filled in.

use std::net::SocketAddr;
use std::path::Path;

use crate::fetch::Tree;
use crate::ports::Ports;

/// Every file of `/etc/asterisk` the lab has, by its name there.
const FILES: [(&str, &str); 17] = [
    ("asterisk.conf", include_str!("../conf/asterisk.conf")),
    ("ari.conf", include_str!("../conf/ari.conf")),
    ("extensions.conf", include_str!("../conf/extensions.conf")),
    ("http.conf", include_str!("../conf/http.conf")),
    ("logger.conf", include_str!("../conf/logger.conf")),
    ("manager.conf", include_str!("../conf/manager.conf")),
    ("modules.conf", include_str!("../conf/modules.conf")),
    ("pjsip.conf", include_str!("../conf/pjsip.conf")),
    ("rtp.conf", include_str!("../conf/rtp.conf")),
    (
        "recipes/application.conf",
        include_str!("../conf/recipes/application.conf"),
    ),
    (
        "recipes/dial.conf",
        include_str!("../conf/recipes/dial.conf"),
    ),
    (
        "recipes/freepbx.conf",
        include_str!("../conf/recipes/freepbx.conf"),
    ),
    (
        "recipes/gateway.conf",
        include_str!("../conf/recipes/gateway.conf"),
    ),
    (
        "recipes/limit.conf",
        include_str!("../conf/recipes/limit.conf"),
    ),
    (
        "recipes/softphone.conf",
        include_str!("../conf/recipes/softphone.conf"),
    ),
    (
        "recipes/softphone-account.conf",
        include_str!("../conf/recipes/softphone-account.conf"),
    ),
    (
        "recipes/transcribe.conf",
        include_str!("../conf/recipes/transcribe.conf"),
    ),
];

/// The server's address as the recipes name it, for readers.
const RECIPE_SERVER: &str = "127.0.0.1:9092";

/// The address of the gateway's HTTP API in the recipes.
const RECIPE_GATEWAY: &str = "127.0.0.1:9093";

/// How the recipes ring phones that the lab doesn't have, and who takes the calls instead.
const RECIPE_PHONES: [(&str, &str); 2] = [
    ("PJSIP/${EXTEN:1}", "Local/${EXTEN:1}@party"),
    (
        "PJSIP/${CUT(RESULT,\\,,2)}",
        "Local/${CUT(RESULT,\\,,2)}@party",
    ),
];

/// Writes the configuration into `folder/etc`.
pub(crate) fn write(
    folder: &Path,
    tree: &Tree,
    ports: &Ports,
    server: Option<SocketAddr>,
) -> std::io::Result<()> {
    // A scenario says where its server is in the variable D, for the call or globally, and where its gateway is in H.
    let gateway = server.map_or("${H}", |_| RECIPE_GATEWAY);
    let server = server.map_or_else(|| "${D}".to_owned(), |address| address.to_string());
    let values = [
        ("@FOLDER@", folder.display().to_string()),
        ("@ROOT@", tree.root().display().to_string()),
        ("@LIBRARIES@", tree.libraries().display().to_string()),
        ("@AMI_PORT@", ports.ami.to_string()),
        ("@HTTP_PORT@", ports.http.to_string()),
        ("@SIP_PORT@", ports.sip.to_string()),
        ("@RTP_FIRST@", ports.rtp.start().to_string()),
        ("@RTP_LAST@", ports.rtp.end().to_string()),
        (RECIPE_SERVER, server),
        (RECIPE_GATEWAY, gateway.to_owned()),
    ];
    let phones = RECIPE_PHONES.map(|(ours, theirs)| (ours, theirs.to_owned()));
    let etc = folder.join("etc");
    std::fs::create_dir_all(etc.join("recipes"))?;
    for (name, template) in FILES {
        let text = values
            .iter()
            .chain(&phones)
            .fold(template.to_owned(), |text, (mark, value)| {
                text.replace(mark, value)
            });
        std::fs::write(etc.join(name), text)?;
    }
    Ok(())
}
