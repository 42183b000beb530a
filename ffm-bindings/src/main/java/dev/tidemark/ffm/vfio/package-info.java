/**
 * VFIO ({@code linux/vfio.h}): devices given to user space, by character device and IOMMUFD or by
 * group and type1 container; their migration states; and which pages they wrote, by the device's
 * own log or by the container.
 */
package dev.tidemark.ffm.vfio;
