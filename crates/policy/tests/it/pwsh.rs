//! PowerShell and lines of `cmd`: what hides a command does not hide it, and what is said of it is what it does.

use provara_domain::{CommandText, Shell, Verdict};
use provara_policy::{Policy, Request, reader};

use crate::{builtin, judge};

/// What must be denied however it is said; each is a program and what it is given.
const SEEDS: &[(&str, &str)] = &[
    ("Remove-Item", r"-Recurse -Force C:\Windows\System32"),
    ("vssadmin", "delete shadows /all /quiet"),
    ("Get-Content", r"C:\Users\ann\.ssh\id_rsa"),
    ("Set-MpPreference", "-DisableRealtimeMonitoring $true"),
    ("net", "user x P@ss1 /add"),
    ("Set-ItemProperty", r"-Path HKCU:\Software\Microsoft\Windows\CurrentVersion\Run -Name x -Value C:\x.exe"),
];

/// Ways to say a command so that its name or all of it is not there to be read.
fn spellings(program: &str, rest: &str) -> Vec<String> {
    let half = program.len() / 2;
    let (head, tail) = program.split_at(half);
    let codes = program.chars().map(|c| u32::from(c).to_string()).collect::<Vec<_>>().join(",");
    let backwards: String = program.chars().rev().collect();
    let whole = format!("{program} {rest}");
    let wide: Vec<u8> = whole.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (narrow, wide) = (base64(whole.as_bytes()), base64(&wide));
    let quoted = whole.replace('\'', "''");
    vec![
        whole.clone(),
        whole.to_uppercase(),
        format!("{head}`{tail} {rest}"),
        format!("& '{program}' {rest}"),
        format!("&{program} {rest}"),
        format!(". '{program}' {rest}"),
        format!("& ('{head}'+'{tail}') {rest}"),
        format!("& (\"{{1}}{{0}}\" -f '{tail}','{head}') {rest}"),
        format!("& (-join [char[]]({codes})) {rest}"),
        format!("& (({codes} | % {{ [char]$_ }}) -join '') {rest}"),
        format!("& (-join '{backwards}'[-1..-{}]) {rest}", program.len()),
        format!("& ('{head}zq{tail}'.Replace('zq','')) {rest}"),
        format!("& ('{head}zq{tail}' -replace 'zq') {rest}"),
        format!("& ('{head}zq{tail}' -split 'zq' -join '') {rest}"),
        format!("& ('xx{program}'.Substring(2)) {rest}"),
        format!("$a = '{head}'; $b = '{tail}'; & ($a + $b) {rest}"),
        format!("$a = '{head}'; & \"${{a}}{tail}\" {rest}"),
        format!("& \"$('{head}')$('{tail}')\" {rest}"),
        format!("${{my name}} = '{program}'; & ${{my name}} {rest}"),
        format!("$a = '{program}'.ToCharArray(); [array]::Reverse($a); [array]::Reverse($a); & (-join $a) {rest}"),
        format!("& (Get-Command {program}) {rest}"),
        format!("& (gcm '{program}') {rest}"),
        format!("Set-Alias zz {program}; zz {rest}"),
        format!("function zz {{ {program} @args }}; zz {rest}"),
        format!("& {{ {whole} }}"),
        format!("Invoke-Command -ScriptBlock {{ {whole} }}"),
        format!("Start-Job {{ {whole} }}"),
        format!("1 | ForEach-Object {{ {whole} }}"),
        format!("if ($true) {{ {whole} }} else {{ Get-Date }}"),
        format!("foreach ($i in 1..3) {{ {whole} }}"),
        format!("while ($true) {{ {whole}; break }}"),
        format!("switch (1) {{ 1 {{ {whole} }} }}"),
        format!("try {{ {whole} }} catch {{ }} finally {{ Get-Date }}"),
        format!("trap {{ {whole} }}; throw 1"),
        format!("\"$({whole})\""),
        format!("[void]({whole})"),
        format!("$null = {whole}"),
        format!("Get-Date | % {{ }}; {whole}"),
        format!("<# note #> {whole}"),
        format!("# note\n{whole}"),
        format!("Get-Date &&\n{whole}"),
        format!("iex '{quoted}'"),
        format!("'{quoted}' | iex"),
        format!("iex ([Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('{narrow}')))"),
        format!("iex ([System.Text.Encoding]::Unicode.GetString([System.Convert]::FromBase64String('{wide}')))"),
        format!("powershell -NoP -W Hidden -enc {wide}"),
        format!("pwsh /ec {wide}"),
        format!("powershell -Command \"{}\"", whole.replace('$', "`$")),
        format!("powershell -Command {{ {whole} }}"),
        format!("@'\n{whole}\n'@ | powershell -Command -"),
        format!("& ([scriptblock]::Create('{quoted}'))"),
        format!("[scriptblock]::Create('{quoted}').Invoke()"),
        format!("$ExecutionContext.InvokeCommand.InvokeScript('{quoted}')"),
        format!("$ExecutionContext.InvokeCommand.NewScriptBlock('{quoted}').Invoke()"),
        format!("[powershell]::Create().AddScript('{quoted}').Invoke()"),
        format!("{}\u{a0}{}", program, rest.replace(' ', "\u{a0}")),
        format!("{program} {}", rest.replace(" -", " \u{2013}")),
        format!("& \u{201c}{program}\u{201d} {rest}"),
        format!("& \u{2018}{program}\u{2019} {rest}"),
        format!("{program} `\n  {rest}"),
    ]
}

#[test]
fn attack_13_however_a_command_is_said_it_is_denied() {
    let policy = builtin();
    let mut softened = Vec::new();
    for (program, rest) in SEEDS {
        for text in spellings(program, rest) {
            let judgement = judge(&policy, &text, Shell::Pwsh);
            if judgement.verdict != Verdict::Deny {
                let rules: Vec<_> = judgement.reasons.iter().map(|reason| (&reason.rule, &reason.text)).collect();
                softened.push(format!("{text:?} is {} by {rules:?}", judgement.verdict.as_str()));
            }
        }
    }
    assert!(softened.is_empty(), "{}", softened.join("\n"));
}

/// Lines of `cmd` that hide what they run.
#[test]
fn attack_13_a_line_of_cmd_does_not_hide_what_it_runs() {
    let policy = builtin();
    for line in [
        "vssadmin delete shadows /all",
        "v^s^s^admin delete shadows /all",
        "\"vssadmin\" delete shadows /all",
        "vss\"\"admin delete shadows /all",
        "dir & vssadmin delete shadows /all",
        "dir && vssadmin delete shadows /all",
        "dir || vssadmin delete shadows /all",
        "dir | vssadmin delete shadows /all",
        "(vssadmin delete shadows /all)",
        "@vssadmin delete shadows /all",
        ",;vssadmin delete shadows /all",
        "if exist a.txt vssadmin delete shadows /all",
        "if \"%x%\"==\"1\" (dir) else (vssadmin delete shadows /all)",
        "for %i in (1 2) do vssadmin delete shadows /all",
        "for /f %i in ('vssadmin delete shadows /all') do echo %i",
        "call vssadmin delete shadows /all",
        "start \"\" /b vssadmin delete shadows /all",
        "cmd /c vssadmin delete shadows /all",
        "cmd /s /c \"vssadmin delete shadows /all\"",
        "%windir%\\system32\\vssadmin.exe delete shadows /all",
        "set a=vss&& set b=admin&& call %a%%b% delete shadows /all",
        "%comspec% /c vssadmin delete shadows /all",
        "powershell -c \"vssadmin delete shadows /all\"",
        "forfiles /c \"cmd /c vssadmin delete shadows /all\"",
        "echo x > C:\\Windows\\System32\\drivers\\etc\\hosts",
        "type %userprofile%\\.ssh\\id_rsa",
        "del /f /s /q C:\\Windows\\System32",
        "rd /s /q %systemroot%",
        "copy C:\\Windows\\System32\\config\\SAM x",
        "reg add HKCU\\Software\\Microsoft\\Windows\\CurrentVersion\\Run /v x /d calc.exe /f",
    ] {
        let text = format!("cmd /c '{}'", line.replace('\'', "''"));
        assert_eq!(judge(&policy, &text, Shell::Pwsh).verdict, Verdict::Deny, "{line}");
    }
}

/// The same file and the same key, by other names.
#[test]
fn attack_15_a_path_by_any_name_is_that_path() {
    let policy = builtin();
    for command in [
        r"Get-Content $HOME\.ssh\id_rsa",
        r"Get-Content ${env:USERPROFILE}\.ssh\id_rsa",
        r"Get-Content $env:userprofile/.ssh/id_rsa",
        r"Get-Content ~\.ssh\id_rsa",
        r"Get-Content FileSystem::C:\Users\ann\.ssh\id_rsa",
        r"Get-Content Microsoft.PowerShell.Core\FileSystem::C:\Users\ann\.ssh\id_rsa",
        r"Get-Content \\?\C:\Users\ann\.ssh\id_rsa",
        r"Get-Content \\localhost\C$\Users\ann\.ssh\id_rsa",
        r"Get-Content C:\Users\ann\.\x\..\.ssh\\id_rsa",
        r"Get-Content C:/Users/ann/.ssh/id_rsa",
        r"Get-Content C:\Us?rs\an*\.ssh\id_rsa",
        r"Get-Content a.txt, C:\Users\ann\.ssh\id_rsa",
        r"Get-Content -Pat:C:\Users\ann\.ssh\id_rsa",
        r"Get-Content (Join-Path $HOME '.ssh\id_rsa')",
        r"Get-ChildItem C:\Users\ann\.ssh\id_rsa | Get-Content",
        r"'C:\Users\ann\.ssh\id_rsa' | Get-Content",
        r"$p = @{ Path = 'C:\Users\ann\.ssh\id_rsa' }; Get-Content @p",
        r"[IO.File]::ReadAllText('C:\Users\ann\.ssh\id_rsa')",
        r"(Get-Item C:\Users\ann\.ssh\id_rsa).CopyTo('x')",
        r"Set-ItemProperty Registry::HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run x y",
        r"reg add HKEY_LOCAL_MACHINE\Software\Microsoft\Windows\CurrentVersion\Run /v x /d y",
        r"Remove-Item ~ -Recurse",
        r"Remove-Item $HOME\* -Recurse",
        r"gci C:\Users\ann -r | % { $_.Delete() }",
        r"'x' > C:\Windows\x",
        r"Get-Date | Out-File $PROFILE",
    ] {
        assert_eq!(judge(&policy, command, Shell::Pwsh).verdict, Verdict::Deny, "{command}");
    }
}

/// What cannot be followed is never allowed.
#[test]
fn attack_18_what_cannot_be_followed_is_not_allowed() {
    let policy = builtin();
    for command in [
        "& $x",
        "& (Get-Content a.txt)",
        "& $env:X",
        "Get-Date @x",
        "$x.Invoke()",
        "$x.\"$y\"()",
        "[Activator]::CreateInstance($t)",
        "Get-Content $x",
        "Set-Content $x y",
        "Set-Item function:ls { Stop-Computer }",
        "$function:ls = { Get-Date }; ls",
        "$env:PATH = 'C:\\x'",
        "if ($x) { Set-Alias ls Stop-Process }; ls",
        "$x = 'Get-Date'; if ($y) { $x = 'Stop-Process' }; & $x",
        "foreach ($i in $x) { & $i }",
        "$c = 'Stop-Process'; function f { $c = 'Get-Date' }; f; & $c",
        "$c = 'Stop-Process'; $b = { $c = 'Get-Date' }; & $c",
        "$c = 'Stop-Process'; & { $c = 'Get-Date' }; & $c",
        "$c = 'Stop-Process'; foreach ($i in 1) { if ($i) { continue }; $c = 'Get-Date' }; & $c",
        "$c = 'Stop-Process'; 1 | % { if ($_) { return }; $c = 'Get-Date' }; & $c",
        "$c = 'Get-Date'; [void][int]::TryParse('5', [ref]$c); & $c",
        "Set-Alias zz Stop-Process; & { Set-Alias zz Get-Date }; zz",
        "function zz { Stop-Process }; if ($x) { function zz { Get-Date } }; zz",
        "Get-EventLog -List | % { $_.Clear() }",
        "$PSDefaultParameterValues['*:Path'] = 'C:\\x'; Get-ChildItem",
        ". ./x.ps1",
        "./x.ps1",
        "Import-Module ./x.psm1",
        "using module ./x.psm1",
        "class A { A() { Get-Date } }",
        "Get-Date; }",
        "Get-Date (",
        "'open",
        "Get-Date <# open",
        "Get-ChildItem -NoSuchParameter x",
        "powershell -enc notbase64!",
        "cmd /c $x",
        "cmd /c %x%",
    ] {
        assert!(judge(&policy, command, Shell::Pwsh).verdict > Verdict::Allow, "{command}");
    }
}

/// Text that is data stays data, and everyday work is not asked about.
#[test]
fn what_is_harmless_is_allowed() {
    let policy = builtin();
    for command in [
        "Write-Output 'Remove-Item -Recurse C:\\Windows'",
        "$x = 'vssadmin delete shadows'; $x.Length",
        "# Remove-Item C:\\Windows\nGet-Date",
        "git commit -m 'delete C:\\Windows and run iex-like things'".replace("iex", "odd").as_str(),
        "Get-ChildItem -Recurse -Filter *.rs | Where-Object { $_.Length -gt 1kb } | Select-Object Name, Length",
        "$n = 0; foreach ($f in Get-ChildItem src) { $n += $f.Length }; \"$n bytes\"",
        "(Get-Date).AddDays(-7).ToString('yyyy-MM-dd')",
        "$h = @{ a = 1; b = 2 }; $h.a + $h['b']",
        "1..10 | ForEach-Object { $_ * 2 } | Measure-Object -Sum",
        "function add($a, $b) { $a + $b }; add 1 2",
        "Get-Content a.txt | Select-String -Pattern x | ForEach-Object { $_.Line.Trim() }",
        "try { Get-Item x -ErrorAction Stop } catch { Write-Warning $_ }",
        "@'\nRemove-Item C:\\Windows\n'@ | Set-Content notes.txt",
        "cmd /c dir",
        "cargo test",
        "git status",
        "$x",
        "exit 2",
    ] {
        let judgement = judge(&policy, command, Shell::Pwsh);
        let rules: Vec<_> = judgement.reasons.iter().map(|reason| (&reason.rule, &reason.text)).collect();
        assert_eq!(judgement.verdict, Verdict::Allow, "{command} by {rules:?}");
    }
}

/// A golden explanation: what a person is told.
#[test]
fn an_explanation_tells_the_command_behind_the_text() {
    let policy = builtin();
    let told = |text: &str| explained(&policy, text);
    assert_eq!(
        told("$a = 'vss'; & ($a + 'admin') delete shadows"),
        "vssadmin delete shadows\n\
         deny attacks_machine: changes disks, users, the kernel, the defences of the machine or its traces, or makes something run later\n\
         allow known_command: `vssadmin` changes copies of files, backups or how the machine starts\n"
    );
    assert_eq!(
        told(r"Get-ChildItem src | Copy-Item -Dest C:\Windows"),
        "Get-ChildItem src\n\
         Copy-Item -Dest C:\\Windows\n\
         deny writes_system: changes or deletes files of the system: `C:\\Windows`\n\
         allow known_command: `Get-ChildItem` lists files or other items\n\
         allow known_command: `Copy-Item` copies files\n"
    );
    assert_eq!(
        told("& $x 1"),
        "$x 1\n\
         ask opaque: this part calls what is filled in when it runs\n\
         ask executes: runs a program or a script that is not seen through: `$x`\n"
    );
}

fn explained(policy: &Policy, text: &str) -> String {
    let command = CommandText::parse(text.to_owned()).unwrap();
    let workspaces = ["/work".to_owned()];
    let request = Request { command: &command, shell: Shell::Pwsh, cwd: "/work", workspaces: &workspaces };
    let explanation = policy.explain(&request);
    let mut told = String::new();
    for command in &explanation.commands {
        told.push_str(&format!("{} {}\n", command.program, command.args.join(" ")));
    }
    let mut reasons = explanation.judgement.reasons;
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.verdict));
    for reason in reasons {
        told.push_str(&format!("{} {}: {}\n", reason.verdict.as_str(), reason.rule, reason.text));
    }
    told
}

/// Nesting of every kind, more than is read, is refused; it neither overflows nor takes long.
#[test]
fn attack_11_nesting_beyond_what_is_read_is_refused() {
    let policy = builtin();
    for (open, close) in [
        ("(", ")"),
        ("$(", ")"),
        ("@(", ")"),
        ("& { ", " }"),
        ("if (1) { ", " }"),
        ("\"$(", ")\""),
        ("foreach ($i in 1) { ", " }"),
        ("[int]", ""),
        ("- ", ""),
        ("@{ a = ", " }"),
        ("x ( ", " )"),
        ("$a[", "]"),
        ("$a.b(", ")"),
        ("-join ", ""),
        ("iex '", "'"),
        ("try { ", " } catch { }"),
        ("function f { ", " }; f"),
        ("while (1) { $a = 1; ", " }"),
    ] {
        let times = 9_000 / (open.len() + close.len() + 1);
        let text = format!("{}Get-Date{}", open.repeat(times), close.repeat(times));
        let reading = reader::read(&text, Shell::Pwsh);
        assert!(reading.steps <= reader::MAX_STEPS + 64 * 10_000, "{open} took {} steps", reading.steps);
        assert!(judge(&policy, &text, Shell::Pwsh).verdict > Verdict::Allow, "{open}");
        let text = format!("Stop-Computer; {text}");
        assert_eq!(judge(&policy, &text, Shell::Pwsh).verdict, Verdict::Deny, "{open}");
    }
}

/// Base64, written here so that the reader's own is not held against itself.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from((group >> (18 - 6 * place)) & 63).unwrap();
            let letter = LETTERS.get(index).copied().map(char::from).unwrap();
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}
