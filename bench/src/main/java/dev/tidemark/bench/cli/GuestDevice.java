package dev.tidemark.bench.cli;

import dev.tidemark.engine.source.plan.ContainerFacts.Type1Limits;
import dev.tidemark.engine.source.plan.DeviceFacts;
import dev.tidemark.engine.source.plan.DeviceProbe;
import dev.tidemark.engine.source.plan.DeviceProbe.LogTrial;
import dev.tidemark.engine.source.plan.OnOffAuto;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * A VFIO device of a guest, as the command line says it.
 *
 * @param name its name, or a path of it
 * @param migration whether the operator wants it migrated
 * @param deviceTracking whether its own log may be used
 * @param has what it has, if it is not on this host; null if it is
 */
record GuestDevice(
    String name, OnOffAuto migration, OnOffAuto deviceTracking, Set<GuestDevice.Ability> has) {
  /** The limit of every Linux so far ({@code DIRTY_BITMAP_SIZE_MAX}). */
  private static final Type1Limits TYPE1_LIMITS = new Type1Limits(256 << 20, Pages.SIZE);

  /** What a device can have. */
  enum Ability {
    STOP_COPY,
    P2P,
    DMA_LOG,
    IOMMU_TRACKING
  }

  /**
   * What was found.
   *
   * @param container what kind of container it is in
   * @param limits that one's; null if it has none
   * @param facts the device
   */
  record Asked(String container, Type1Limits limits, DeviceFacts facts) {}

  /**
   * Asks the device, if it is on this host.
   *
   * @param type1 by its group and a type1 container
   * @param trial of its log
   * @throws dev.tidemark.ffm.LinuxException if it cannot be opened
   * @throws IllegalArgumentException if this host has no such device
   */
  Asked ask(boolean type1, LogTrial trial) {
    if (has == null) {
      VfioHostDevice device = find();
      DeviceProbe probe =
          type1 ? DeviceProbe.throughType1(device, trial) : DeviceProbe.of(device, trial);
      return new Asked(probe.container(), probe.limits(), probe.facts(migration, deviceTracking));
    }
    DeviceFacts facts =
        new DeviceFacts(
            name,
            migration,
            deviceTracking,
            has.contains(Ability.STOP_COPY),
            has.contains(Ability.P2P),
            has.contains(Ability.DMA_LOG),
            has.contains(Ability.IOMMU_TRACKING) && !type1,
            null);
    return type1
        ? new Asked(DeviceProbe.TYPE1, TYPE1_LIMITS, facts)
        : new Asked(DeviceProbe.IOMMUFD, null, facts);
  }

  private VfioHostDevice find() {
    List<VfioHostDevice> all = VfioHostDevice.list();
    return all.stream()
        .filter(
            device ->
                device.name().equals(name)
                    || device.cdev().filter(name::equals).isPresent()
                    || device.group().filter(name::equals).isPresent())
        .findFirst()
        .orElseThrow(
            () ->
                new IllegalArgumentException(
                    String.format(
                        Locale.ROOT,
                        "no VFIO device %s on this host (it has: %s); has=... for one that is elsewhere",
                        name,
                        all.isEmpty()
                            ? "none"
                            : all.stream()
                                .map(VfioHostDevice::name)
                                .collect(Collectors.joining(", ")))));
  }

  /** {@code NAME[,KEY=VALUE...]}. */
  static final class Converter implements ITypeConverter<GuestDevice> {
    @Override
    public GuestDevice convert(String text) {
      String[] parts = text.split(",", -1);
      if (parts[0].isBlank()) {
        throw new TypeConversionException("'" + text + "' names no device");
      }
      if (!Text.line(parts[0]).equals(parts[0])) {
        throw new TypeConversionException("'" + text + "' is not how a device is named");
      }
      OnOffAuto migration = OnOffAuto.AUTO;
      OnOffAuto deviceTracking = OnOffAuto.AUTO;
      Set<Ability> has = null;
      for (String part : Arrays.asList(parts).subList(1, parts.length)) {
        String[] pair = part.split("=", 2);
        switch (pair.length == 2 ? pair[0] : "") {
          case "migration" -> migration = of(OnOffAuto.class, pair[1]);
          case "device-tracking" -> deviceTracking = of(OnOffAuto.class, pair[1]);
          case "has" -> {
            has = new TreeSet<>();
            for (String word : pair[1].isEmpty() ? new String[0] : pair[1].split("\\+", -1)) {
              has.add(of(Ability.class, word));
            }
          }
          default ->
              throw new TypeConversionException(
                  "'" + part + "' is not migration=, device-tracking= or has=");
        }
      }
      return new GuestDevice(parts[0], migration, deviceTracking, has);
    }

    private static <E extends Enum<E>> E of(Class<E> type, String word) {
      try {
        return Enum.valueOf(type, word.toUpperCase(Locale.ROOT));
      } catch (IllegalArgumentException e) {
        throw new TypeConversionException(
            String.format(
                Locale.ROOT,
                "'%s' is none of %s",
                word,
                Arrays.toString(type.getEnumConstants()).toLowerCase(Locale.ROOT)));
      }
    }
  }
}
