# @summary Installs dockerd-guard and its policy, and reloads the agent if that has changed. Never restarts Docker.
#
# @param policy
#   The policy, with the keys of dockerd-guard.yaml(5). `dockerd-guard check` validates it before it is installed.
# @param package_ensure
#   The `ensure` of the package: a version, `installed` or `latest`.
class dockerd_guard (
  Hash[String[1], Data] $policy = { 'version' => 1, 'mode' => 'observe', 'sockets' => ['fd://'] },
  String[1] $package_ensure = 'installed',
) {
  package { 'dockerd-guard':
    ensure => $package_ensure,
  }

  file { '/etc/dockerd-guard/config.yaml':
    ensure       => file,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    content      => template('dockerd_guard/config.yaml.erb'),
    validate_cmd => '/usr/bin/dockerd-guard check --quiet %',
    require      => Package['dockerd-guard'],
  }

  # A refresh runs the command of `restart`.
  service { 'dockerd-guard':
    ensure    => running,
    enable    => true,
    restart   => '/usr/bin/systemctl reload dockerd-guard',
    subscribe => File['/etc/dockerd-guard/config.yaml'],
  }
}
