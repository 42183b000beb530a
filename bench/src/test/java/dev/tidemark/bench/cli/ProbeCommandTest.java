package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** {@code probe} and {@code explain}: the real devices of the lab, and plain facts anywhere. */
class ProbeCommandTest {
  private static InProcess.Printed run(String... args) {
    InProcess.Printed ran = InProcess.print(args);
    System.out.println(ran.output() + ran.errors());
    return ran;
  }

  private static String verdict(JsonObject device) {
    return device.get("refused").isJsonNull()
        ? "%s logs=%s tracks=%s %s %s"
            .formatted(
                device.get("migration"),
                device.get("logsDma"),
                device.get("pageTableTracks"),
                device.get("tracker").getAsString(),
                device.get("outcome").getAsString())
        : device.get("refused").getAsString();
  }

  private static Map<String, String> probed() {
    InProcess.Printed ran = run("probe", "--json");
    assertEquals(0, ran.status());
    JsonObject host = Json.object(ran.output().strip());
    assertTrue(host.getAsJsonObject("iommufd").get("available").getAsBoolean());
    Map<String, String> verdicts = new TreeMap<>();
    for (JsonElement element : host.getAsJsonArray("vfioDevices")) {
      JsonObject device = element.getAsJsonObject();
      String name = device.get("name").getAsString();
      String driver = device.get("driver").getAsString();
      verdicts.put(driver.equals("dmalog") ? name : driver, verdict(device));
    }
    return verdicts;
  }

  private static Map<String, String> ownDevices() {
    String migrates = " logs=true tracks=false DEVICE MIGRATES";
    Map<String, String> expected = new TreeMap<>();
    expected.put("dmalog.0", "[] logs=true tracks=false DEVICE BLOCKED");
    expected.put("dmalog.1", "[\"STOP_COPY\"]" + migrates);
    expected.put("dmalog.2", "[\"STOP_COPY\",\"P2P\"]" + migrates);
    expected.put("dmalog.3", "[\"STOP_COPY\",\"PRE_COPY\"]" + migrates);
    expected.put("dmalog.4", "[\"STOP_COPY\",\"P2P\",\"PRE_COPY\"]" + migrates);
    expected.put("dmalog.5", "[\"STOP_COPY\",\"P2P\",\"PRE_COPY\"]" + migrates);
    expected.put("mtty", "[\"STOP_COPY\",\"P2P\",\"PRE_COPY\"]" + migrates);
    return expected;
  }

  /** The tree of each device, by its name, or by its driver if that is not our own. */
  private static Map<String, String> trees() {
    String text = run("probe").output();
    Map<String, String> trees = new TreeMap<>();
    Matcher device =
        Pattern.compile(
                "^VFIO device (\\S+)\\n  driver +(\\S+)\\n(?:  .*\\n)*device \\1: (.*\\n(?:[|`].*\\n)*)",
                Pattern.MULTILINE)
            .matcher(text);
    while (device.find()) {
      String driver = device.group(2);
      trees.put(driver.equals("dmalog") ? device.group(1) : driver, device.group(3));
    }
    return trees;
  }

  private static final String CANNOT_MIGRATE =
      """
      in container IOMMUFD [BLOCKER]
      |- migration is wanted: auto [ok]
      |- its driver saves and loads its state (VFIO_MIGRATION_STOP_COPY): no [BLOCKER]
      |- its DMA is tracked: not asked [-]
      |- it is the only one, or all have P2P: not asked [-]
      `- its own log takes all that may be mapped: not asked [-]
      """;

  private static String migrates(String p2p) {
    return """
    in container IOMMUFD [ok]
    |- migration is wanted: auto [ok]
    |- its driver saves and loads its state (VFIO_MIGRATION_STOP_COPY): yes [ok]
    |- its DMA is tracked: each device logs its own DMA [ok]
    |  |- it logs its own DMA: yes [ok]
    |  |- its page table tracks: no [-]
    |  `- all of its container are tracked: each device logs its own DMA [ok]
    |- it is the only one, or all have P2P: 1 device, %s [ok]
    `- its own log takes all that may be mapped: vIOMMU no, nothing refused [ok]
    """
        .formatted(p2p);
  }

  private static Map<String, String> ownTrees() {
    Map<String, String> expected = new TreeMap<>();
    expected.put("dmalog.0", CANNOT_MIGRATE);
    expected.put("dmalog.1", migrates("without P2P: dmalog.1"));
    expected.put("dmalog.2", migrates("all with P2P"));
    expected.put("dmalog.3", migrates("without P2P: dmalog.3"));
    expected.put("dmalog.4", migrates("all with P2P"));
    expected.put("dmalog.5", migrates("all with P2P"));
    expected.put("mtty", migrates("all with P2P"));
    return expected;
  }

  @Test
  @Tag("lab-mock")
  void everyDeviceOfTheMockLabHasItsVerdict() {
    assertEquals(ownDevices(), probed());
    assertEquals(ownTrees(), trees());
  }

  @Test
  @Tag("lab-vtd")
  void everyDeviceOfTheVtdLabHasItsVerdict() {
    Map<String, String> expected = ownDevices();
    expected.put("vfio-pci", "[] logs=false tracks=false NONE BLOCKED");
    assertEquals(expected, probed());
    Map<String, String> trees = ownTrees();
    trees.put("vfio-pci", CANNOT_MIGRATE);
    assertEquals(trees, trees());
    String text = run("probe").output();
    assertTrue(text.contains("page table tracks    no: ioctl(IOMMU_HWPT_ALLOC)"), text);
    assertTrue(text.contains("EOPNOTSUPP (95)"), text);
  }

  @Test
  @Tag("lab-mock")
  void aDeviceInUseIsListedWithTheReason() {
    VfioHostDevice device =
        VfioHostDevice.list().stream()
            .filter(found -> found.name().equals("dmalog.1"))
            .findFirst()
            .orElseThrow();
    try (VfioGroup group = VfioGroup.open(device.group().orElseThrow())) {
      assertEquals(1, group.status());
      Map<String, String> expected = ownDevices();
      String why = probed().get("dmalog.1");
      assertTrue(why.contains("EBUSY (16)") && why.endsWith("close its group first"), why);
      expected.put("dmalog.1", why);
      assertEquals(expected, probed());
      InProcess.Printed ran = run("explain", "--device", "dmalog.1");
      assertEquals(1, ran.status());
      assertTrue(ran.errors().contains("EBUSY"), ran.errors());
    }
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void explainTriesTheLogOfADeviceBehindAVIommu() {
    InProcess.Printed takes = run("explain", "--ram", "1G", "--viommu", "--device", "dmalog.4");
    assertEquals(0, takes.status());
    assertTrue(takes.output().contains("vIOMMU yes, nothing refused [ok]"), takes.output());
    assertTrue(takes.output().contains("in container IOMMUFD of dmalog.4 [ok]"), takes.output());
    // One that cannot migrate is not asked any further.
    assertEquals(1, run("explain", "--viommu=39", "--device", "dmalog.0").status());
    InProcess.Printed wide = run("explain", "--viommu=63", "--device", "dmalog.4");
    assertEquals(2, wide.status());
    assertTrue(wide.errors().contains("63"), wide.errors());
  }

  @Test
  @Tag("lab-mock")
  @Tag("lab-vtd")
  void explainAsksTheDevicesOfTheHost() {
    String[] both = {"explain", "--ram", "1G", "--device", "dmalog.2", "--device", "dmalog.4"};
    assertEquals(0, run(both).status());
    InProcess.Printed off = run("explain", "--device", "dmalog.4,device-tracking=off");
    assertEquals(1, off.status());
    assertTrue(off.output().contains("neither [BLOCKER]"), off.output());
    InProcess.Printed type1 =
        run(
            "explain",
            "--ram",
            "9T",
            "--type1",
            "--device",
            "dmalog.4,device-tracking=off,migration=on");
    assertEquals(1, type1.status());
    assertTrue(type1.output().contains("up to 8796093022208 bytes"), type1.output());
  }

  @Test
  void explainTakesPlainFacts() {
    InProcess.Printed free = run("explain", "--device", "vf0,has=stop_copy+dma_log");
    assertEquals(0, free.status());
    assertTrue(free.output().contains("IOMMUFD: each device logs its own DMA"), free.output());
    InProcess.Printed several =
        run(
            "explain",
            "--device",
            "vf0,has=stop_copy+dma_log",
            "--device",
            "vf1,has=stop_copy+p2p+dma_log");
    assertEquals(1, several.status());
    assertTrue(several.output().contains("without P2P: vf0 [BLOCKER]"), several.output());
    InProcess.Printed vIommu =
        run("explain", "--viommu", "--device", "vf0,has=stop_copy+iommu_tracking");
    assertEquals(0, vIommu.status());
    InProcess.Printed warns =
        run("explain", "--device", "vf0,migration=on,has=stop_copy", "--json");
    assertEquals(0, warns.status());
    JsonObject answer = Json.object(warns.output().strip());
    assertFalse(answer.get("blocked").getAsBoolean());
    assertEquals(
        "MIGRATES_WITH_WARNING",
        answer.getAsJsonArray("devices").get(0).getAsJsonObject().get("outcome").getAsString());
    InProcess.Printed limit =
        run("explain", "--type1", "--ram", "9T", "--device", "vf0,migration=on,has=stop_copy");
    assertEquals(1, limit.status());
    InProcess.Printed secret = run("explain", "--unreadable", "pc.ram: guest_memfd");
    assertEquals(1, secret.status());
    assertTrue(secret.output().contains("pc.ram: guest_memfd [BLOCKER]"), secret.output());
  }

  @Test
  void whatExplainDoesNotUnderstandIsNamed() {
    InProcess.Printed key = run("explain", "--device", "vf0,colour=red");
    assertEquals(2, key.status());
    assertTrue(key.errors().contains("'colour=red' is not migration="), key.errors());
    InProcess.Printed word = run("explain", "--device", "vf0,has=wings");
    assertEquals(2, word.status());
    assertTrue(word.errors().contains("'wings' is none of [stop_copy,"), word.errors());
    assertEquals(2, run("explain", "--device", ",migration=on").status());
    InProcess.Printed stranger = run("explain", "--device", "0000:ff:1f.7");
    assertEquals(2, stranger.status());
    assertTrue(stranger.errors().contains("no VFIO device 0000:ff:1f.7"), stranger.errors());
  }
}
