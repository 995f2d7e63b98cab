"""The keys of each unit file section, and the systemd version that introduced them.

From `systemd --dump-configuration-items` of 252, 257 and 262. A key that was introduced between two of
these has the first version after the older one, unless NEWS names the version.
"""

from __future__ import annotations

_OLDEST = 252

_KNOWN = {
    ("Unit", _OLDEST): """
        After AllowIsolate AssertACPower AssertArchitecture AssertCPUFeature AssertCPUPressure
        AssertCPUs AssertCapability AssertControlGroupController AssertCredential
        AssertDirectoryNotEmpty AssertEnvironment AssertFileIsExecutable AssertFileNotEmpty
        AssertFirstBoot AssertGroup AssertHost AssertIOPressure AssertKernelCommandLine
        AssertKernelVersion AssertMemory AssertMemoryPressure AssertNeedsUpdate AssertOSRelease
        AssertPathExists AssertPathExistsGlob AssertPathIsDirectory AssertPathIsEncrypted
        AssertPathIsMountPoint AssertPathIsReadWrite AssertPathIsSymbolicLink AssertSecurity
        AssertUser AssertVirtualization Before BindTo BindsTo CollectMode ConditionACPower
        ConditionArchitecture ConditionCPUFeature ConditionCPUPressure ConditionCPUs
        ConditionCapability ConditionControlGroupController ConditionCredential
        ConditionDirectoryNotEmpty ConditionEnvironment ConditionFileIsExecutable
        ConditionFileNotEmpty ConditionFirmware ConditionFirstBoot ConditionGroup ConditionHost
        ConditionIOPressure ConditionKernelCommandLine ConditionKernelVersion ConditionMemory
        ConditionMemoryPressure ConditionNeedsUpdate ConditionOSRelease ConditionPathExists
        ConditionPathExistsGlob ConditionPathIsDirectory ConditionPathIsEncrypted
        ConditionPathIsMountPoint ConditionPathIsReadWrite ConditionPathIsSymbolicLink
        ConditionSecurity ConditionUser ConditionVirtualization Conflicts DefaultDependencies
        Description Documentation FailureAction FailureActionExitStatus IgnoreOnIsolate
        JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument JobTimeoutSec
        JoinsNamespaceOf OnFailure OnFailureIsolate OnFailureJobMode OnSuccess OnSuccessJobMode
        PartOf PropagateReloadFrom PropagateReloadTo PropagatesReloadTo PropagatesStopTo
        RebootArgument RefuseManualStart RefuseManualStop ReloadPropagatedFrom Requires
        RequiresMountsFor RequiresOverridable Requisite RequisiteOverridable SourcePath
        StartLimitAction StartLimitBurst StartLimitInterval StartLimitIntervalSec StopPropagatedFrom
        StopWhenUnneeded SuccessAction SuccessActionExitStatus Upholds Wants
    """,
    ("Unit", 253): """
        SurviveFinalKillSignal WantsMountsFor
    """,
    ("Unit", 258): """
        AssertFraction AssertKernelModuleLoaded AssertMachineTag AssertPathIsSocket AssertVersion
        ConditionFraction ConditionKernelModuleLoaded ConditionMachineTag ConditionPathIsSocket
        ConditionVersion
    """,
    ("Install", _OLDEST): """
        Alias Also DefaultInstance RequiredBy WantedBy
    """,
    ("Install", 253): """
        UpheldBy
    """,
    ("Service", _OLDEST): """
        BusName ExecCondition ExecReload ExecStart ExecStop ExitType FailureAction
        FileDescriptorStoreMax GuessMainPID NonBlocking NotifyAccess OOMPolicy PIDFile
        PermissionsStartOnly RebootArgument RemainAfterExit Restart RestartForceExitStatus
        RestartPreventExitStatus RestartSec RootDirectoryStartOnly RuntimeMaxSec
        RuntimeRandomizedExtraSec Sockets StartLimitAction StartLimitBurst StartLimitInterval
        SuccessExitStatus TimeoutAbortSec TimeoutStartFailureMode TimeoutStartSec
        TimeoutStopFailureMode TimeoutStopSec Type USBFunctionDescriptors USBFunctionStrings
        WatchdogSec
    """,
    ("Service", 253): """
        FileDescriptorStorePreserve OpenFile ReloadSignal RestartMaxDelaySec RestartMode
        RestartSteps
    """,
    ("Service", 259): """
        ExecReloadPost
    """,
    ("Service", 258): """
        LUOSession RefreshOnReload RestartRandomizedDelaySec
    """,
    ("Socket", _OLDEST): """
        Accept Backlog BindIPv6Only BindToDevice Broadcast DeferAcceptSec DirectoryMode ExecStopPre
        FileDescriptorName FlushPending FreeBind IPTOS IPTTL KeepAlive KeepAliveIntervalSec
        KeepAliveProbes KeepAliveTimeSec ListenDatagram ListenFIFO ListenMessageQueue ListenNetlink
        ListenSequentialPacket ListenSpecial ListenStream ListenUSBFunction Mark MaxConnections
        MaxConnectionsPerSource MessageQueueMaxMessages MessageQueueMessageSize NoDelay
        PassCredentials PassPacketInfo PassSecurity PipeSize Priority ReceiveBuffer RemoveOnStop
        ReusePort SELinuxContextFromNet SendBuffer Service SmackLabel SmackLabelIPIn SmackLabelIPOut
        SocketGroup SocketMode SocketProtocol SocketUser Symlinks TCPCongestion Timestamping
        Transparent TriggerLimitBurst TriggerLimitIntervalSec Writable
    """,
    ("Socket", 253): """
        PassFileDescriptorsToExec PollLimitBurst PollLimitIntervalSec
    """,
    ("Socket", 258): """
        AcceptFileDescriptors DeferTrigger DeferTriggerMaxSec PassPIDFD XAttrAccept XAttrEntryPoint
        XAttrListen
    """,
    ("Service Socket", _OLDEST): """
        AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFProgram BindPaths
        BindReadOnlyPaths BlockIOAccounting BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight
        BlockIOWriteBandwidth CPUAccounting CPUAffinity CPUQuota CPUQuotaPeriodSec
        CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUShares CPUWeight
        CacheDirectory CacheDirectoryMode CapabilityBoundingSet ConfigurationDirectory
        ConfigurationDirectoryMode CoredumpFilter DefaultMemoryLow DefaultMemoryMin Delegate
        DeviceAllow DevicePolicy DisableControllers DynamicUser Environment EnvironmentFile
        ExecPaths ExecSearchPath ExecStartPost ExecStartPre ExecStopPost ExtensionDirectories
        ExtensionImages FinalKillSignal Group IOAccounting IODeviceLatencyTargetSec IODeviceWeight
        IOReadBandwidthMax IOReadIOPSMax IOSchedulingClass IOSchedulingPriority IOWeight
        IOWriteBandwidthMax IOWriteIOPSMax IPAccounting IPAddressAllow IPAddressDeny
        IPCNamespacePath IPEgressFilterPath IPIngressFilterPath IgnoreSIGPIPE
        InaccessibleDirectories InaccessiblePaths KeyringMode KillMode KillSignal LimitAS LimitCORE
        LimitCPU LimitDATA LimitFSIZE LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE
        LimitNPROC LimitRSS LimitRTPRIO LimitRTTIME LimitSIGPENDING LimitSTACK LoadCredential
        LoadCredentialEncrypted LockPersonality LogExtraFields LogLevelMax LogNamespace
        LogRateLimitBurst LogRateLimitIntervalSec LogsDirectory LogsDirectoryMode
        ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit ManagedOOMPreference ManagedOOMSwap
        MemoryAccounting MemoryDenyWriteExecute MemoryHigh MemoryLimit MemoryLow MemoryMax MemoryMin
        MemorySwapMax MountAPIVFS MountFlags MountImages NUMAMask NUMAPolicy NetworkNamespacePath
        Nice NoExecPaths NoNewPrivileges OOMScoreAdjust PAMName PassEnvironment Personality
        PrivateDevices PrivateIPC PrivateMounts PrivateNetwork PrivateTmp PrivateUsers ProcSubset
        ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
        ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyDirectories
        ReadOnlyPaths ReadWriteDirectories ReadWritePaths RemoveIPC RestartKillSignal
        RestrictAddressFamilies RestrictFileSystems RestrictNamespaces RestrictNetworkInterfaces
        RestrictRealtime RestrictSUIDSGID RootDirectory RootHash RootHashSignature RootImage
        RootImageOptions RootVerity RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve
        SELinuxContext SecureBits SendSIGHUP SendSIGKILL SetCredential SetCredentialEncrypted Slice
        SmackProcessLabel SocketBindAllow SocketBindDeny StandardError StandardInput
        StandardInputData StandardInputText StandardOutput StartupAllowedCPUs
        StartupAllowedMemoryNodes StartupBlockIOWeight StartupCPUShares StartupCPUWeight
        StartupIOWeight StateDirectory StateDirectoryMode SupplementaryGroups SyslogFacility
        SyslogIdentifier SyslogLevel SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber
        SystemCallFilter SystemCallLog TTYColumns TTYPath TTYReset TTYRows TTYVHangup
        TTYVTDisallocate TasksAccounting TasksMax TemporaryFileSystem TimeoutCleanSec TimeoutSec
        TimerSlackNSec UMask UnsetEnvironment User UtmpIdentifier UtmpMode WatchdogSignal
        WorkingDirectory
    """,
    ("Service Socket", 254): """
        ExtensionImagePolicy MountImagePolicy RootImagePolicy
    """,
    ("Service Socket", 255): """
        SetLoginEnvironment
    """,
    ("Service Socket", 253): """
        BindLogSockets CoredumpReceive DefaultStartupMemoryLow DelegateSubgroup ImportCredential
        LogFilterPatterns ManagedOOMMemoryPressureDurationSec MemoryKSM MemoryPressureThresholdSec
        MemoryPressureWatch MemoryZSwapMax MemoryZSwapWriteback NFTSet PrivatePIDs RootEphemeral
        StartupMemoryHigh StartupMemoryLow StartupMemoryMax StartupMemorySwapMax
        StartupMemoryZSwapMax
    """,
    ("Service Socket", 260): """
        RootMStack
    """,
    ("Service Socket", 258): """
        BPFDelegateAttachments BPFDelegateCommands BPFDelegateMaps BPFDelegatePrograms
        BindNetworkInterface CPUPressureThresholdSec CPUPressureWatch CPUSetPartition
        CacheDirectoryAccounting CacheDirectoryQuota DelegateNamespaces IOPressureThresholdSec
        IOPressureWatch LogsDirectoryAccounting LogsDirectoryQuota MemoryTHP OOMRules PrivateBPF
        StateDirectoryAccounting StateDirectoryQuota UserNamespacePath
    """,
}

KEYS: dict[str, int] = {
    f"{section}.{key}": 0 if since == _OLDEST else since
    for (sections, since), keys in _KNOWN.items()
    for section in sections.split()
    for key in keys.split()
}
"""`Section.Key` to the first version that may support it (0: all versions)."""
