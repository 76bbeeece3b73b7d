//! The three forms of an inventory, and mistakes in each.

use super::*;
use crate::playbook::model::TargetKind;

/// `name = user@host:port …` per target, and each mistake with the text that it points at.
fn shown(name: &str, text: &str) -> Vec<String> {
    let (targets, diagnostics) = read(SourceId(1), name, text);
    let mut all: Vec<String> = targets
        .iter()
        .map(|t| match &t.kind {
            TargetKind::Local => format!("{} = local", t.name.value),
            TargetKind::Group(members) => {
                let members: Vec<_> = members.iter().map(|m| m.value.as_str()).collect();
                format!("{} = [{}]", t.name.value, members.join(" "))
            }
            TargetKind::Ssh(ssh) => {
                let user = ssh.user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
                let port = ssh.port.map(|p| format!(":{p}")).unwrap_or_default();
                let more = [&ssh.identity, &ssh.become_user].into_iter().flatten().map(|m| format!(" {m}"));
                let options = ssh.options.iter().map(|(k, v)| format!(" {k}={v}"));
                format!("{} = {user}{}{port}{}", t.name.value, ssh.host, more.chain(options).collect::<String>())
            }
        })
        .collect();
    all.extend(diagnostics.iter().map(|d| {
        let span = d.labels[0].span;
        assert_eq!(span.source, SourceId(1));
        let at = &text[span.start as usize..span.end as usize];
        let help = d.help.as_deref().unwrap_or("-");
        format!("{} at {at:?}: {} ({help})", d.code.name(), d.message)
    }));
    all
}

#[test]
fn ini() {
    let text = "\
# machines
bastion ansible_host=10.0.0.1 ansible_port=2222 # the way in
mail:2525

[web]
web[01:03].example.com ansible_user=www
[db]
db-[a:b] ansible_ssh_common_args='-o ProxyJump=bastion -o ConnectTimeout=5'
here ansible_connection=local

[site:children]
web
db
[site:vars]
ansible_user=ops
ansible_become = yes
http_port=80
[db:vars]
ansible_user=\"dba\"
";
    insta::assert_snapshot!(shown("hosts", text).join("\n"), @r"
    bastion = 10.0.0.1:2222
    mail = mail:2525
    web01.example.com = www@web01.example.com root
    web02.example.com = www@web02.example.com root
    web03.example.com = www@web03.example.com root
    db-a = dba@db-a root ProxyJump=bastion ConnectTimeout=5
    db-b = dba@db-b root ProxyJump=bastion ConnectTimeout=5
    here = local
    ungrouped = [bastion mail]
    web = [web01.example.com web02.example.com web03.example.com]
    db = [db-a db-b here]
    site = [web01.example.com web02.example.com web03.example.com db-a db-b here]
    ");
}

#[test]
fn mistakes_in_ini_point_at_their_words() {
    let text = "\
[web]
a ansible_hots=10.0.0.1 ansible_port=no stray
b ansible_user='x
c[1-3]
d ansible_ssh_pass=secret ansible_connection=winrm
e ansible_ssh_common_args='-F x'
[wbe:vars]
x=1
[web:childs]
[site:children]
webb
";
    insta::assert_snapshot!(shown("hosts.ini", text).join("\n"));
}

#[test]
fn ansible_yaml() {
    let text = "\
all:
  vars: { ansible_user: ops }
  hosts:
    solo: { ansible_host: 10.0.0.9 }
  children:
    web:
      hosts:
        web[1:2]:
        web3: { ansible_port: 2222, tags: [a, b] }
      vars: { ansible_user: www, ansible_become: true, ansible_become_user: app }
    empty:
";
    insta::assert_snapshot!(shown("hosts.yml", text).join("\n"), @r"
    solo = ops@10.0.0.9
    web1 = www@web1 app
    web2 = www@web2 app
    web3 = www@web3:2222 app
    all = [solo web1 web2 web3]
    web = [web1 web2 web3]
    ");
    let wrong = "all:\n  hots: { a: }\n  children: [x]\n  vars: { ansible_usr: x }\n";
    insta::assert_snapshot!(shown("hosts.yml", wrong).join("\n"));
}

#[test]
fn our_own() {
    let text = "web1: { ssh: ops@web1.example.com }\nweb2: { ssh: { host: 10.0.0.2, port: 2222 } }\nweb: { group: [web1, web2] }\n";
    let plain = ["web1 = ops@web1.example.com", "web2 = 10.0.0.2:2222", "web = [web1 web2]"];
    assert_eq!(shown("inventory.yaml", text), plain);
    let nested = format!("targets:\n  {}", text.trim_end().replace('\n', "\n  "));
    assert_eq!(shown("inventory.yaml", &nested), plain);
    let wrong = "web1: { shh: a }\nweb: { group: [wbe1] }\n";
    insta::assert_snapshot!(shown("inventory.yaml", wrong).join("\n"));
    assert!(shown("inventory.yaml", "")[0].contains("the inventory is empty"));
}

#[test]
fn ranges_are_bounded() {
    assert_eq!(ranges("a[1:2]b[x:y]").unwrap_or_default(), ["a1bx", "a2bx", "a1by", "a2by"]);
    assert_eq!(ranges("a[0:10:5]").unwrap_or_default(), ["a0", "a5", "a10"]);
    for bad in ["a[1", "a[1:2000]", "a[2:1]", "a[]", "a[1:2:0]", "a[1:40]b[1:40]"] {
        assert!(ranges(bad).is_err(), "{bad}");
    }
}
