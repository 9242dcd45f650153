# Packages the core as an IP: component.xml in $ip_dir.

create_project -force package [file join $work_dir package] -part $part
add_files -norecurse $verilog
set_property top $top [current_fileset]
update_compile_order -fileset sources_1

lassign [split $vlnv :] vendor library name version
ipx::package_project -root_dir $ip_dir -vendor $vendor -library $library -taxonomy /UserIP -import_files -force
set core [ipx::current_core]
set_property name $name $core
set_property version $version $core
set_property display_name "Spikeloom $machine" $core
set_property description "Writes text with a spiking transformer; machine $machine, fingerprint $fingerprint" $core
set_property supported_families [list $device_family Production] $core

# Vivado knows the interfaces by the names of their ports; where a version does not, it is told.
foreach bus [concat [list $registers] $managers] {
    if {[llength [ipx::get_bus_interfaces -quiet $bus -of_objects $core]] == 0} {
        ipx::infer_bus_interface [dict get $bus_ports $bus] xilinx.com:interface:aximm_rtl:1.0 $core
    }
}
foreach {pin kind} [list $clock clock $reset reset $interrupt interrupt] {
    if {[llength [ipx::get_bus_interfaces -quiet $pin -of_objects $core]] == 0} {
        ipx::infer_bus_interface $pin xilinx.com:signal:${kind}_rtl:1.0 $core
    }
}

proc set_bus_parameter {bus parameter value} {
    global core
    set interface [ipx::get_bus_interfaces $bus -of_objects $core]
    if {[llength [ipx::get_bus_parameters -quiet $parameter -of_objects $interface]] == 0} {
        ipx::add_bus_parameter $parameter $interface
    }
    set_property value $value [ipx::get_bus_parameters $parameter -of_objects $interface]
}

foreach bus [concat [list $registers] $managers] {
    ipx::associate_bus_interfaces -busif $bus -clock $clock $core
}
ipx::associate_bus_interfaces -clock $clock -reset $reset $core
set_bus_parameter $reset POLARITY ACTIVE_LOW
set_bus_parameter $interrupt SENSITIVITY LEVEL_HIGH
foreach bus $managers {
    set_bus_parameter $bus PROTOCOL $protocol
}

# The clock's frequency is the block design's to say.
set interface [ipx::get_bus_interfaces $clock -of_objects $core]
if {[llength [ipx::get_bus_parameters -quiet FREQ_HZ -of_objects $interface]] != 0} {
    ipx::remove_bus_parameter FREQ_HZ $interface
}

set_property core_revision 1 $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
