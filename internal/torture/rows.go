package main

import "time"

// What a row needs of the machine, in the words of --list. Each test finds out by itself
// and says what it misses.
const (
	needsDisks  = "root, mkfs.ext4, mkfs.xfs, loop devices"
	needsExt4   = "root, mkfs.ext4, loop devices"
	needsMemory = "root and a cgroup file system with memory and pids for the limits of the kernel"
)

// fuzzFor is how long the short form fuzzes one target.
const fuzzFor = 2 * time.Second

// fuzz is a target of a package.
func fuzz(pkg, target string) part { return part{pkg: pkg, run: target, fuzz: fuzzFor} }

// fixed are tests that are the same each time.
func fixed(pkg, run string) part { return part{pkg: pkg, run: run} }

// scaled are tests whose counts are in the environment.
func scaled(pkg, run, env string, short int) part {
	return part{pkg: pkg, run: run, counts: []count{{env, short}}}
}

// model are tests of rapid, which does so many checks in the short form.
func model(pkg, run string, checks int) part { return part{pkg: pkg, run: run, rapid: checks} }

// repeated are tests that choose at random and have no count of their own.
func repeated(pkg, run string) part { return part{pkg: pkg, run: run, again: 1} }

// account is the control of all rows that settle accounts between what the daemon
// acknowledged, what it lists and what arrived: sound books are spoilt in eight ways.
func account() []part { return []part{fixed("./daemon", "TestTheAccountReportsWhatIsWrong")} }

// scoreboard is docs/reliability.md as code: every row of it, those included that
// nobody has written tests of.
func scoreboard() []row {
	return append(append(crashes(), states()...), outside()...)
}

// crashes are the rows about the machine and the process. It is long because it is a table.
func crashes() []row {
	return []row{
		{number: 1, fault: "kill -9 at random, daemon, queue, plugins", required: "0 acknowledged lost, same ids, same bytes",
			parts: []part{
				scaled("./daemon", "TestNothingAcknowledgedIsLostByKill", "DAEMON_CRASH_KILLS", 6),
				scaled("./internal/queue", "TestNothingAcknowledgedIsLostByKill|TestNothingIsLostByKillWhileWebhooksComeAndGo|TestTheStatesOfEntriesFitTheirDeliveriesAfterAKill|TestNoOrderIsLostByKill", "QUEUE_CRASH_KILLS", 10),
				scaled("./internal/config/history", "TestNothingAppendedIsLostByKill", "HISTORY_CRASH_KILLS", 25),
				{pkg: "./daemon", run: "TestKillsOfAPluginLoseNothing", again: 1, waits: true},
				fixed("./internal/queue", "TestWhatOnlyTheJournalHasIsThereAfterACrash|TestTheJournalGoesRoundAndRound"),
			},
			controls: append(account(), fixed("./internal/queue", "TestTheAccountOfAKillNoticesWhatIsNotThere"))},
		{number: 2, fault: "power cut, ext4 and xfs", required: "0 acknowledged lost", needs: needsDisks,
			parts: []part{
				scaled("./daemon", "TestNothingAcknowledgedIsLostByAPowerCut", "DAEMON_POWER_CUTS", 2),
				scaled("./internal/queue", "TestNothingAcknowledgedIsLostByAPowerCut|TestAPowerCutWhileTheStoreIsMadeLeavesOneThatOpens|TestAPowerCutInTheMiddleOfDroppingAndCollectingKeepsWhatIsPending", "QUEUE_POWER_CUTS", 2),
				scaled("./internal/config/history", "TestNothingAppendedIsLostByAPowerCut", "HISTORY_POWER_CUTS", 2),
				model("./internal/config/history", "TestAPowerCutLosesNothingThatWasAppended", 15),
			},
			controls: []part{fixed("./internal/queue", "TestTheAccountNoticesAStoreThatDoesNotSync")}},
		{number: 3, fault: "each write fails: lost, or done but told lost", required: "0 acknowledged lost",
			parts: []part{
				scaled("./internal/queue", "TestNothingAcknowledgedIsLostAtAnyFailpoint", "FAILPOINT_ROUNDS", 0),
				scaled("./daemon", "TestNothingAcknowledgedIsLostAtAnyFailpoint", "FAILPOINT_ROUNDS", 0),
				fixed("./internal/config/history", "TestEveryFailureLeavesTheOldOrTheNew|TestAProcessThatDiesAfterTheFailureLeavesTheOldOrTheNew"),
			},
			controls: []part{fixed("./internal/queue", "TestTheAccountOfATourReportsWhatIsWrong")}},
		{number: 4, fault: "I/O errors on write and on fsync", required: "stops acknowledging, ends with 74, 0 lost", needs: needsExt4,
			parts: []part{
				scaled("./daemon", "TestAStorageErrorEndsTheDaemonAndLosesNothing", "DAEMON_STORAGE_ERRORS", 1),
				fixed("./internal/queue", "TestAnErrorLineOfTheDatabaseStopsEverything|TestAnErrorThatAReaderMeetsStopsTheGroupUnderWay|TestAnErrorThatAReaderMeetsEndsAnIdleStore|TestAnErrorLineStopsAnIdleStore"),
			},
			controls: append(account(), fixed("./internal/queue", "TestAWarningWithoutAnErrorDoesNotStopTheStore"))},
		{number: 5, fault: "own disk full, inodes full", required: "507, no crash, resumes unaided", needs: needsExt4,
			parts: []part{
				repeated("./daemon", "TestADaemonThatFillsItsOwnDiskRefusesInTime|TestInodesThatRunOutRefuseAndRecoverByThemselves"),
				fixed("./internal/queue", "TestTooLittleSpaceRefusesAndRecoversByItself|TestManyBytesAreReasonEnoughToLookAtTheDiskAgain"),
			},
			controls: account()},
		{number: 6, fault: "disk filled by others, start while full", required: "0 lost, degraded start, no crash loop", needs: needsExt4,
			parts:    []part{repeated("./daemon", "TestAFullDiskRefusesPausesAndRecoversByItself|TestADaemonThatStartsWithoutSpaceWaitsForIt")},
			controls: account()},
		{number: 7, fault: "damage at rest to every kind of file", required: "recovered, or named; never silent, never a panic",
			parts: []part{
				fixed("./daemon", "TestAQueueThatCannotBeUsedIsRefusedAndLeftAlone"),
				fixed("./internal/queue", "TestADamagedRowEndsAsFailedAndIsKept|TestADamagedRowOfTheLogIsSetAside|TestACompletionSurvivesADamagedRow|TestADamagedStateIsSetAsideAndIsNothing|TestADamagedLifeIsRefusedAtTheStart"),
				fixed("./internal/queue/journal", "TestARecordThatWasDamagedLaterIsAnError|TestWhatIsNoJournalOfThisStoreIsRefused"),
				fixed("./internal/config/history", "TestADamagedEntryCostsItselfAndNoOther|TestADamagedFileCostsTheEntriesThatHaveItAndIsHealed|TestWhenNothingIntactIsLeftTheErrorNamesEverything"),
				fixed("./internal/backup", "TestNothingButTheWholeFileIsTakenForOne|TestFramesCannotChangePlaces"),
				scaled("./internal/queue", "TestDamageIsNeverSilent", "QUEUE_DAMAGES", 96),
				fixed("./internal/queue", "TestARepairedStoreHasEverythingThatCouldBeRead|TestAnAuditOfARepairedStoreAddsUp|TestAnInterruptedRepairLeavesTheOldOrTheNew|TestAPanicOfAReaderStopsTheStore"),
				fuzz("./internal/queue/journal", "FuzzRecover"),
				fuzz("./internal/queue/journal", "FuzzSalvage"),
				fuzz("./internal/queue/rawdb", "FuzzBlock"),
				fuzz("./internal/queue/rawdb", "FuzzIndex"),
				fuzz("./internal/queue/rawdb", "FuzzLog"),
				fuzz("./internal/queue/rawdb", "FuzzManifest"),
				fuzz("./internal/queue", "FuzzStateFiles"),
				fuzz("./internal/config/history", "FuzzDecode"),
			},
			// Without checksums a flip goes unnoticed; without the names of what is lost books do not balance.
			controls: []part{fixed("./internal/queue", "TestAFlipGoesUnnoticedWithoutChecksums|TestTheAccountNoticesWhatNobodyNames|TestAnAuditNoticesWhatIsWrong")}},
		{number: 8, fault: "torn or empty files", required: "opens, and what was acknowledged is there",
			parts: []part{
				scaled("./internal/queue", "TestTornAndEmptyFilesAreNoDamage", "QUEUE_TORN", 30),
				fixed("./internal/queue", "TestEmptyFilesOfACrashAreSwept|TestACrashWhileInitialisingIsRepaired"),
				fixed("./internal/queue/journal", "TestARecordThatWasNotWrittenToItsEndIsPassedOver|TestARecordInsideARecordIsNotOne"),
			},
			controls: []part{fixed("./internal/queue", "TestAnEmptyDatabaseUnderAnInitialisedFormatIsRefused|TestAnOlderDatabaseBesideTheJournalIsRefused")}},
		{number: 9, fault: "limits of memory, descriptors, processes", required: "0 lost, a clear error", needs: needsMemory,
			parts: []part{
				{pkg: "./daemon", run: "TestAPluginThatTheKernelKillsForItsMemoryLosesNothing", waits: true},
				fixed("./internal/pluginhost/process", "TestTheKernelKillsAPluginThatEatsMemory|TestAPluginThatMayHaveNoMoreMemorySaysSo"),
				fixed("./internal/config/watch", "TestWithoutInotifyTheFilesArePolled|TestAnOverflowOfTheKernelsQueueIsMadeUpFor"),
			},
			controls: []part{fixed("./internal/pluginhost/process", "TestSIGKILLByAPersonIsNotTakenForLackOfMemory")}},
		{number: 10, fault: "the daemon hangs: stopped, deadlock", required: "the watchdog of systemd restarts it, 0 lost",
			parts: []part{
				scaled("./daemon", "TestAHangEndsInARestartByTheWatchdog", "DAEMON_HANGS", 1),
				fixed("./daemon", "TestADiskThatDoesNotAnswerIsToldAndWaitedFor"),
				fixed("./internal/watchdog", "TestAPartThatHangsIsToldAndThenTheServiceManagerBites|TestStorageExcusesNobodyWhoDoesNotNeedIt"),
			},
			controls: []part{fixed("./daemon", "TestAWatchdogThatLivingSatisfiesMissesTheDeadlock")}},
	}
}

// states are the rows about time, changes and what is kept. It is long because it is a table.
func states() []row {
	return []row{
		{number: 11, fault: "a receiver is away for 72 h", required: "schedule exact, no stampede, never twice in flight",
			parts: []part{
				scaled("./internal/dispatch", "TestAReceiverThatIsAwayFor72HoursGetsWhatItsScheduleSaysAndNoStampede", "DISPATCH_OUTAGE", 1000),
				fixed("./internal/dispatch", "TestA72HourOutage|TestTheTimetableIsKeptToTheSecondAndThenTheDeliveryIsFailed|TestARestartIsNoReasonForABurst"),
				model("./internal/retry", "TestRetryAfterOnlyLengthensAndIsCapped|TestEveryDeliveryEndsAndEveryDecisionIsNamed", 100),
			},
			controls: []part{fixed("./internal/dispatch", "TestTheCheckOfAnOutageFindsWhatItLooksFor")}},
		{number: 12, fault: "the clock jumps a year, running or at start", required: "nothing delayed, dropped or forgotten",
			parts: []part{
				fixed("./internal/queue", "TestAWallClockAYearOffLosesStallsAndWipesNothing|TestAWallClockThatJumpsAtEveryStartExpiresNothing"),
				fixed("./internal/dispatch", "TestOnBadgerTheTimetableIsKeptWhateverTheWallClockDoes|TestAWallClockAYearOffDelaysDropsAndWipesNothing"),
				fixed("./internal/queue", "TestStartsUnderAWallClockFarAheadWipeNothing"),
			},
			controls: []part{fixed("./internal/dispatch", "TestTheCheckOfTheClockFindsWhatItLooksFor")}},
		{number: 13, fault: "30 % loss, resets, black hole, 256 kbit/s", required: "all delivered, nothing leaked",
			needs: "root, network namespaces, nft, tc",
			parts: []part{scaled("./daemon", "TestABadNetworkLosesNothing", "DAEMON_NETWORK_ROUNDS", 1)},
			// It has a webhook without retries beside the others, which must lose.
			controls: []part{fixed("./daemon", "TestABadNetworkLosesNothing")}},
		{number: 14, fault: "reloads under load, valid and invalid", required: "last good stays, 0 lost, none to the wrong sink",
			parts: []part{
				scaled("./daemon", "TestReloadsUnderLoadLoseNothing", "DAEMON_RELOADS", 40),
				scaled("./daemon", "TestKillsDuringReloadsLoseNothing", "DAEMON_RELOAD_KILLS", 4),
				fixed("./daemon", "TestEveryKeyOfTheConfigurationIsFollowedOrSaidToNeedARestart|TestABurstOfDropInsIsOneReload|TestANewSecretInAFileSignsTheNextAttempt"),
				scaled("./internal/config/watch", "TestWhateverHappensToTheDirectoriesIsNoticed", "WATCH_ROUNDS", 24),
				fuzz("./internal/config", "FuzzLoad"),
			},
			controls: []part{fixed("./daemon", "TestTheStepsOfARotationNeverLoseADelivery")}},
		{number: 15, fault: "concurrent operations against a model", required: "accepted = delivered + failed + held + pending",
			parts: []part{
				model("./internal/queue", "TestTheStoreAgreesWithAModel|TestLivesAgreeWithAModel|TestStatesAgreeWithAModel|TestEntriesStayInOrderWhateverHappens", 25),
				model("./internal/queue/journal", "TestWhatWasAppendedAndNotAppliedComesBack", 100),
				model("./internal/dispatch", "TestWhateverHappensEveryDeliveryEndsAndNoneIsInFlightTwice", 100),
				model("./internal/dispatch", "TestQueueAndDispatchAgreeWithABookThroughCrashes", 40),
			},
			controls: []part{fixed("./internal/dispatch", "TestTheBookFindsEachPlantedBug")}},
		{number: 16, fault: "SSRF: notations, IPv4 in IPv6, rebinding", required: "0 connections to a forbidden address",
			parts: []part{
				fixed("./internal/egress", "TestEveryKindOfAddress|TestAMappedFormIsJudgedAsTheAddressInside|TestNoOtherNotationNamesAnAddress|TestOnlyTCPToAnAddressIsDialled|TestADNSAnswerThatChangesChangesNothing|TestTheProxyOfTheEnvironmentMayBePrivateButNeverMetadata|TestBehindAProxyTheHostOfTheURLIsJudged"),
				fixed("./internal/httpsink", "TestForbiddenAddressesAreNotDialled|TestAProxyIsNotAskedForAForbiddenTarget|TestNoNotationOfAForbiddenAddressIsReached|TestNoDetourLeadsToAForbiddenAddress"),
				fuzz("./internal/egress", "FuzzControl"),
			},
			// The guard off for one address: the same listener gets its connections.
			controls: []part{fixed("./internal/httpsink", "TestForbiddenAddressesAreNotDialled"), fixed("./internal/egress", "TestWhatAllowMeans")}},
	}
}

// outside are the rows about whoever is outside, and about what lasts. It is long because it is a table.
func outside() []row {
	return []row{
		{number: 17, fault: "hostile receivers and bad TLS", required: "ends by its timeout, memory + < 16 MB",
			parts: []part{
				scaled("./internal/httpsink", "TestHostileReceivers|TestHostileTLS", "HTTPSINK_HOSTILE_ROUNDS", 1),
				fixed("./daemon", "TestCertificatesAreRotatedByReplacingTheirFiles|TestSkippedVerificationIsSaidEverywhere"),
				model("./internal/httpsink", "TestAnswersAreJudgedAsByNetHTTP", 100),
				fuzz("./internal/httpsink", "FuzzAnswersAreJudgedAsByNetHTTP"),
				fuzz("./internal/httpsink", "FuzzAnswer"),
				fuzz("./internal/httpsink", "FuzzRetryAfter"),
			},
			controls: []part{fixed("./internal/httpsink", "TestWhatVerificationRefusesIsTakenWithoutIt")}},
		{number: 18, fault: "hostile senders and payloads", required: "byte-exact or refused, never a panic",
			parts: []part{
				fixed("./internal/ingest", "TestBadInput|TestStalledClientIsClosed|TestHeaderIsBounded|TestHugeBodyIsRefusedBeforeItIsReadAndTheClientSeesIt|TestClientThatNeverReadsIsBoundedAndClosed|TestAPanicOnTheShortWayCostsItsConnectionOnly"),
				fixed("./internal/event", "TestHostileBodiesCostLinearTime|TestBrokenTextsAreRefusedAtTheByte|TestNumbersThatJavaScriptWouldChangeKeepTheirDigits"),
				fuzz("./internal/event", "FuzzParse"),
				fuzz("./internal/event", "FuzzNumber"),
				fuzz("./internal/event", "FuzzSplit"),
				fuzz("./internal/ingest", "FuzzRequest"),
				fuzz("./internal/ingest", "FuzzNDJSON"),
				fuzz("./internal/ingest", "FuzzLines"),
				fuzz("./internal/ingest", "FuzzFast"),
			},
			controls: []part{fixed("./internal/event", "TestWritingDataAnewAsTheLibraryDoesIsNoticed")}},
		{number: 19, fault: "signatures: vectors of Standard Webhooks", required: "all; nothing else verifies",
			parts: []part{
				fixed("./internal/signing", "TestStandardWebhooksVectors|TestEachSchemeWritesItsHeader|TestWhatNoReceiverCouldVerifyIsRefused|TestHeadersAreFoundInAnyCase|TestAReceiverThatKnowsEitherSecretVerifiesARotation"),
				model("./internal/signing", "TestEverySchemeVerifiesWhatItSignedAndNothingElse", 100),
				fixed("./internal/httpsink", "TestRealReceiversAcceptWhatIsRightAndNothingElse|TestTheStandardWebhooksPackageAcceptsEverySecretThatWeAccept"),
				fuzz("./internal/signing", "FuzzVerify"),
			},
			needs:    "node, python3, php for receivers other than those in Go",
			controls: []part{fixed("./internal/signing", "TestVerifySaysWhyItRefuses|TestVerifySaysWhyItRefusesStandard")}},
		{number: 20, fault: "plugins that crash, hang, flood, lie, fork", required: "others go on, host memory + < 32 MB", needs: needsMemory,
			parts: []part{
				fixed("./internal/pluginhost", "TestZoo.*"),
				model("./internal/pluginhost", "TestWhateverHappensEveryDeliveryHasAnHonestOutcomeAndNothingIsLeft", 100),
				{pkg: "./daemon", run: "TestNoPluginOfTheZooHurtsItsNeighbours", waits: true},
				repeated("./daemon", "TestAPoisonPillFailsAndNothingElse"),
				scaled("./daemon", "TestAnUpgradeUnderLoadLosesAndRepeatsNothing", "DAEMON_ZOO_UPGRADES", 2),
				fuzz("./internal/pluginhost", "FuzzSchema"),
				fuzz("./internal/sinkpb", "FuzzDecode"),
				fuzz("./internal/pluginhost/process", "FuzzHandshake"),
				fuzz("./internal/pluginhost/process", "FuzzRecord"),
			},
			controls: []part{fixed("./internal/zoo", "TestAnswersAreWrongInTheirOwnWay|TestCallsFailWhereTheySay|TestTheNthBatchCrashes")}},
		{number: 21, fault: "kill -9 of a daemon with plugins", required: "0 lost, 0 processes and sockets left",
			parts: []part{
				{pkg: "./daemon", run: "TestKillsOfADaemonWithAPluginLoseNothing", again: 1, waits: true},
				fixed("./internal/pluginhost/process", "TestNothingOutlivesAHostThatIsKilled"),
			},
			controls: []part{fixed("./internal/pluginhost/process", "TestWithoutItsGuardAGrandchildStays")}},
		{number: 22, fault: "planted secrets on every surface", required: "0 sightings",
			parts: []part{
				fixed("./daemon", "TestNoSecretIsSightedAnywhere|TestNobodyReadsTheMemoryOfTheDaemon"),
				fixed("./internal/relay", "TestNoSecretGetsOut|TestNoBrokenConfigurationShowsASecret"),
				fixed("./internal/httpsink", "TestNothingKeptShowsASecret|TestALongAnswerIsCutThroughNoSecret"),
				fixed("./internal/pluginhost", "TestZooNoSecretIsShown"),
				fixed("./internal/pluginhost/process", "TestNoSecretGetsIntoTheLog|TestAPluginGetsNothingOfTheHostButWhatItNeeds"),
				model("./internal/secret", "TestALineIsCutWithoutLeavingAPartOfASecret", 100),
			},
			controls: []part{fixed("./daemon", "TestASecretThatIsShownIsSightedOnEverySurface"), fixed("./internal/secrettest", "TestTheSearchForSecretsFindsEachForm")}},
		{number: 23, fault: "the page: scripts, forgery, rebinding, login", required: "0 executed, 0 changed",
			needs: "chromium",
			parts: []part{
				fixed("./internal/web", "TestNoTextOfAnyFieldBecomesMarkup|TestWhatTheScriptPutsInStaysText"),
				scaled("./internal/web", "TestNoTextOfAnyFieldRunsInABrowser", "WEB_XSS", 2),
				fixed("./internal/web", "TestNoForgedRequestChangesAnything|TestNoOtherHostIsAnswered|TestABrowserThatWasReboundGetsNothing|TestTheTokenIsNotGuessed"),
				fixed("./internal/relay", "TestAnOperatorFollowsAFailureToItsReasonAndReplaysIt"),
			},
			controls: []part{fixed("./internal/web", "TestWithoutEscapingTheTextsRunUnlessThePolicyForbidsIt|TestWithoutTheChecksForgedRequestsAreLetIn|TestABrowserThatWasReboundGetsNothing|TestWithoutTheThrottleEveryGuessIsLookedAt")}},
		{number: 24, fault: "a real systemd and a .deb", required: "install, upgrade, reload, restart, purge",
			needs: "root, mmdebstrap, systemd-nspawn and a distribution's mirror, once",
			parts: []part{
				fixed("./internal/packagetest", "TestAFreshInstallRunsAndIsComplete|TestAPluginDeliversInTheConfinesOfTheUnit|TestANewcomersFiveCommandsLeadToAVerifiedEvent|TestARemovalKeepsTheQueueAndAPurgeDeletesIt|TestTheArchiveInstallsUpgradesAndRemoves"),
				fixed("./internal/packagetest", "TestAnUpgradeUnderLoadRefusesAndLosesNothing|TestAnUpgradeIntoAnInvalidConfigurationLeavesTheOldProcess|TestTheCheckOfAnUpgradeSeesWhatTheServiceSees|TestAnUpgradeKeepsWhatTheAdministratorDecided|TestADowngradeThatCannotReadTheQueueIsRefused|TestBothBuildsAreTheSame"),
				fixed("./internal/packagetest", "TestSystemctlReloadFailsForABrokenFileAndTheServiceGoesOn"),
				scaled("./internal/packagetest", "TestARestartUnderLoadRefusesAndLosesNothing|TestAKilledDaemonIsStartedAgainUnderLoad|TestAStoppedDaemonIsRestartedByTheWatchdog", "PACKAGE_RESTARTS", 2),
			},
			controls: []part{fixed("./internal/packagetest", "TestWithoutTheSocketUnitARestartRefuses")}},
		{number: 25, fault: "a queue of a former format; of a newer one", required: "opens; refused clearly",
			parts: []part{
				fixed("./internal/queue", "TestRowsOfTheFormerFormatAreReadAndWrittenAsTheyWere|TestAStoreOfTheFormerFormatIsRaisedAndKeepsWhatItHas|TestAStoreOfAFormerFormatGetsAJournal|TestLanesOfAnEarlierVersionTakeTheIdentityThatTheyMeet|TestTheCountersOfALaneFromBeforeOrderAreRead"),
				fixed("./daemon", "TestAQueueThatCannotBeUsedIsRefusedAndLeftAlone"),
			},
			controls: []part{fixed("./internal/queue", "TestWhatCannotBeOpenedIsRefusedWithFileAndRemedy")}},
		{number: 26, fault: "soak: 2,000 events/s, receiver away at times", required: "memory, descriptors, disk do not grow; 0 lost",
			parts:    []part{{soak: time.Minute, alone: true}},
			controls: []part{fixed("./internal/bench", "TestASoakFailsByWhatGrewAndNothingElse|TestASoakFailsWhenItsRateIsNotHeld|TestASoakFailsWhenTheDiskIsNotGivenBackOrGrows|TestASoakAccountsForEveryEvent")}},
	}
}
