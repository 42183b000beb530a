package dev.tidemark.engine.source.plan;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.source.plan.Blockers.Outcome;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.junit.jupiter.api.Test;

class BlockersTest {
  private static final long TIB = 1L << 40;
  private static final ContainerFacts.Type1Limits LIMITS =
      new ContainerFacts.Type1Limits(256 << 20, 4096);
  private static final String TOO_WIDE = "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: E2BIG (7)";
  private static final Map<String, Outcome> OUTCOMES =
      Map.of(
          "migrates", Outcome.MIGRATES,
          "warns", Outcome.MIGRATES_WITH_WARNING,
          "blocked", Outcome.BLOCKED,
          "refused", Outcome.REFUSED);

  private record Row(String[] cells, String line) {
    String device() {
      return cells[0];
    }

    String iommu() {
      return cells[1];
    }

    boolean vIommu() {
      return !cells[2].equals("no");
    }

    boolean wide() {
      return cells[2].equals("wide");
    }

    OnOffAuto migration() {
      return OnOffAuto.valueOf(cells[3].toUpperCase(Locale.ROOT));
    }

    boolean several() {
      return cells[4].equals("several");
    }

    boolean p2p() {
      return cells[5].equals("yes");
    }

    long ram() {
      return cells[6].equals("over") ? 8 * TIB + 4096 : 8 * TIB;
    }

    Outcome qemu() {
      return OUTCOMES.get(cells[7]);
    }

    Outcome tidemark() {
      return OUTCOMES.get(cells[8]);
    }

    String differs() {
      return cells[10];
    }

    DeviceFacts facts(String name, boolean pageTableTracks) {
      return new DeviceFacts(
          name,
          migration(),
          device().equals("off") ? OnOffAuto.OFF : OnOffAuto.AUTO,
          true,
          p2p(),
          !device().equals("no"),
          pageTableTracks,
          wide() ? TOO_WIDE : null);
    }

    MachineFacts machine() {
      boolean tracks = iommu().equals("yes") || iommu().equals("beside");
      List<DeviceFacts> devices = new ArrayList<>(List.of(facts("first", tracks)));
      if (several()) {
        devices.add(facts("second", iommu().equals("yes") || iommu().equals("not_beside")));
      }
      return machineOf(
          ram(), new ContainerFacts("c0", vIommu(), iommu().equals("no") ? LIMITS : null, devices));
    }
  }

  private static MachineFacts machineOf(long ram, ContainerFacts... containers) {
    return new MachineFacts(ram, List.of(), List.of(containers));
  }

  private static List<Row> table() throws IOException {
    List<Row> rows = new ArrayList<>();
    try (var reader =
        new BufferedReader(
            new InputStreamReader(
                BlockersTest.class.getResourceAsStream("blockers.csv"), StandardCharsets.UTF_8))) {
      reader
          .lines()
          .filter(line -> !line.startsWith("#"))
          .skip(1)
          .forEach(line -> rows.add(new Row(line.split(",", -1), line)));
    }
    return rows;
  }

  /** Every combination that there can be, as the first cells of a row. */
  private static List<String> combinations() {
    List<String> all = new ArrayList<>();
    for (String log : List.of("yes", "no", "off")) {
      for (String iommu : List.of("yes", "no", "beside", "not_beside")) {
        for (String vIommu : List.of("no", "yes", "wide")) {
          for (String migration : List.of("on", "off", "auto")) {
            for (String devices : List.of("one", "several")) {
              for (String p2p : List.of("yes", "no")) {
                for (String ram : List.of("under", "over")) {
                  boolean asksRanges = log.equals("yes") || !vIommu.equals("wide");
                  boolean hasNeighbour = devices.equals("several") || !iommu.endsWith("beside");
                  if (asksRanges && hasNeighbour) {
                    all.add(String.join(",", log, iommu, vIommu, migration, devices, p2p, ram));
                  }
                }
              }
            }
          }
        }
      }
    }
    return all;
  }

  @Test
  void theTableHasEveryCombinationOnce() throws IOException {
    List<String> missing = new ArrayList<>(combinations());
    for (Row row : table()) {
      String combination = String.join(",", List.of(row.cells).subList(0, 7));
      assertTrue(missing.remove(combination), "twice, or none that there can be: " + row.line);
    }
    assertEquals(List.of(), missing, "without a row");
  }

  @Test
  void theTableCitesAConditionAndExplainsEveryDifference() throws IOException {
    for (Row row : table()) {
      assertEquals(11, row.cells.length, row.line);
      assertTrue(
          OUTCOMES.containsKey(row.cells[7]) && OUTCOMES.containsKey(row.cells[8]), row.line);
      assertTrue(row.cells[9].matches("[1-5] .+|none applies"), row.line);
      if (row.qemu() != row.tidemark()) {
        assertFalse(row.differs().isEmpty(), row.line);
        boolean fits = row.device().equals("yes") && row.vIommu() && !row.wide();
        assertTrue(
            fits || row.iommu().endsWith("beside"),
            "only a log that takes all behind a vIOMMU, and page tables of both kinds: "
                + row.line);
      }
    }
  }

  @Test
  void everyRowOfTheTableComesOut() throws IOException {
    for (Row row : table()) {
      Blockers blockers = Blockers.of(row.machine());
      Blockers.Device first = blockers.devices().getFirst();
      assertEquals(row.tidemark(), first.outcome(), () -> row.line + "\n" + blockers);
      if (first.outcome() == Outcome.BLOCKED || first.outcome() == Outcome.REFUSED) {
        assertTrue(blockers.blocked(), row.line);
      }
      // Whoever reads the tree sees why.
      if (row.cells[9].startsWith("5 ") && row.wide()) {
        assertTrue(blockers.toString().contains("refused: " + TOO_WIDE + " [BLOCKER]"), row.line);
      }
    }
  }

  private static DeviceFacts device(
      String name, OnOffAuto migration, boolean p2p, boolean logs, boolean tracks) {
    return new DeviceFacts(name, migration, OnOffAuto.AUTO, true, p2p, logs, tracks, null);
  }

  private static ContainerFacts container(boolean vIommu, DeviceFacts... devices) {
    return new ContainerFacts("c0", vIommu, null, List.of(devices));
  }

  @Test
  void aGuestWithoutDevicesIsFree() {
    Blockers blockers = Blockers.of(machineOf(TIB));
    assertFalse(blockers.blocked());
    assertTrue(blockers.devices().isEmpty());
  }

  @Test
  void memoryThatTheHostCannotReadBlocks() {
    Blockers blockers = Blockers.of(new MachineFacts(TIB, List.of("ram0: guest_memfd"), List.of()));
    assertTrue(blockers.blocked());
    assertTrue(blockers.toString().contains("ram0: guest_memfd [BLOCKER]"), blockers.toString());
  }

  @Test
  void aDeviceWithoutStopCopyBlocksAndIsNotCountedAmongSeveral() {
    DeviceFacts dumb =
        new DeviceFacts("dumb", OnOffAuto.AUTO, OnOffAuto.AUTO, false, false, true, true, null);
    Blockers blockers =
        Blockers.of(
            machineOf(
                TIB, container(false, dumb, device("good", OnOffAuto.AUTO, false, true, true))));
    assertEquals(Outcome.BLOCKED, blockers.devices().get(0).outcome());
    assertEquals(Outcome.MIGRATES, blockers.devices().get(1).outcome());
    assertTrue(blockers.blocked());
  }

  @Test
  void devicesOfAllContainersCountAmongSeveral() {
    Blockers blockers =
        Blockers.of(
            machineOf(
                TIB,
                container(false, device("a", OnOffAuto.AUTO, true, true, false)),
                container(false, device("b", OnOffAuto.ON, false, true, false))));
    assertEquals(Outcome.BLOCKED, blockers.devices().get(0).outcome());
    assertEquals(Outcome.REFUSED, blockers.devices().get(1).outcome());
    assertTrue(blockers.toString().contains("without P2P: b"), blockers.toString());
  }

  @Test
  void aDeviceLogThatIsInsistedOnMustBeThere() {
    DeviceFacts insists =
        new DeviceFacts("d", OnOffAuto.AUTO, OnOffAuto.ON, true, true, false, true, null);
    Blockers blockers = Blockers.of(machineOf(TIB, container(false, insists)));
    assertEquals(Outcome.BLOCKED, blockers.devices().getFirst().outcome());
  }

  @Test
  void aVIommuBlocksOnlyWhereALogThatIsUsedCannotTakeWhatTheGuestMayMap() {
    DeviceFacts takes = device("takes", OnOffAuto.AUTO, true, true, true);
    DeviceFacts plain = device("plain", OnOffAuto.AUTO, true, false, true);
    DeviceFacts narrow =
        new DeviceFacts("narrow", OnOffAuto.AUTO, OnOffAuto.AUTO, true, true, true, true, TOO_WIDE);
    assertFalse(Blockers.of(machineOf(TIB, container(true, takes))).blocked());
    assertFalse(Blockers.of(machineOf(TIB, container(true, plain))).blocked());
    Blockers blockers = Blockers.of(machineOf(TIB, container(true, takes, narrow)));
    assertEquals(Outcome.MIGRATES, blockers.devices().get(0).outcome());
    assertEquals(Outcome.BLOCKED, blockers.devices().get(1).outcome());
    assertTrue(
        blockers
            .toString()
            .contains(
                "takes all that may be mapped: vIOMMU yes, refused: " + TOO_WIDE + " [BLOCKER]"),
        blockers.toString());
    // One device that cannot log makes the IOMMU track for both.
    assertFalse(Blockers.of(machineOf(TIB, container(true, narrow, plain))).blocked());
    // The guest's memory alone can be too much for a log.
    assertTrue(Blockers.of(machineOf(TIB, container(false, narrow))).blocked());
  }

  @Test
  void theTreeSaysWhatWasFoundAndStopsAtTheFirstBlocker() {
    Blockers blockers =
        Blockers.of(
            new MachineFacts(
                16 * TIB,
                List.of(),
                List.of(
                    new ContainerFacts(
                        "type1-0",
                        false,
                        LIMITS,
                        List.of(device("nic", OnOffAuto.ON, true, false, false))))));
    assertEquals(
        """
        migration: 1 VFIO device [BLOCKER]
        |- the host can read the guest's memory: all of it [ok]
        `- device nic: in container type1-0 [BLOCKER]
           |- migration is wanted: on [ok]
           |- its driver saves and loads its state (VFIO_MIGRATION_STOP_COPY): yes [ok]
           |- its DMA is tracked: the type1 container is asked [BLOCKER]
           |  |- it logs its own DMA: no [-]
           |  |- its page table tracks: no [-]
           |  |- all of its container are tracked: nic does not log its DMA: the container may report everything mapped, always [WARNING]
           |  `- the memory fits the container's largest bitmap: 17592186044416 bytes of RAM, 268435456 bytes of bitmap, pages of 4096: up to 8796093022208 bytes [BLOCKER]
           |- it is the only one, or all have P2P: not asked [-]
           `- its own log takes all that may be mapped: not asked [-]
        """,
        blockers.toString());
  }
}
